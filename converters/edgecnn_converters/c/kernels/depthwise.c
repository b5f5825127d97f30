/* Weights are [kernel_y][kernel_x][out_channels]; each input channel makes `per_channel` output channels. */
struct depthwise {
  struct window window;
  int32_t per_channel, in_zero;
  const int8_t *weights;
  struct outputs outputs;
};

/* The sums of `count` channels, from output channel `first` on, where the first tap is at `start` in x, or before it. */
static inline void depthwise_sums(const struct depthwise *d, const int8_t *x, int32_t start, struct taps ty,
                                  struct taps tx, int32_t first, int32_t count, int32_t *sums) {
  const struct window *w = &d->window;
  const int32_t out_channels = w->channels * d->per_channel, zero = d->in_zero;
  const int32_t step_y = w->dilation_y * w->in_width * w->channels, step_x = w->dilation_x * w->channels;
  for (int32_t i = 0; i < count; i++) sums[i] = d->outputs.bias[first + i];
  for (int32_t ky = ty.first; ky < ty.last; ky++) {
    const int8_t *in = x + (start + ky * step_y + tx.first * step_x + first / d->per_channel);
    const int8_t *weight = d->weights + (ky * w->kernel_x + tx.first) * out_channels + first;
    for (int32_t kx = tx.first; kx < tx.last; kx++, in += step_x, weight += out_channels) {
      for (int32_t i = 0; i < count; i++) sums[i] += weight[i] * (in[i] - zero);
    }
  }
}

static void depthwise(const struct depthwise *d, const int8_t *x, int8_t *y) {
  const struct window *w = &d->window;
  const struct outputs *o = &d->outputs;
  const int32_t out_channels = w->channels * d->per_channel;
  for (int32_t oy = 0; oy < w->out_height; oy++) {
    const int32_t y0 = oy * w->stride_y - w->top;
    const struct taps ty = taps_inside(y0, w->kernel_y, w->dilation_y, w->in_height);
    for (int32_t ox = 0; ox < w->out_width; ox++) {
      const int32_t x0 = ox * w->stride_x - w->left;
      const struct taps tx = taps_inside(x0, w->kernel_x, w->dilation_x, w->in_width);
      const int32_t start = (y0 * w->in_width + x0) * w->channels;
      for (int32_t k = 0, count; k < out_channels; k += count, y += count) {
        int32_t sums[4];
        count = d->per_channel == 1 && k + 4 <= out_channels ? 4 : 1;
        if (count == 4) depthwise_sums(d, x, start, ty, tx, k, 4, sums);
        else depthwise_sums(d, x, start, ty, tx, k, 1, sums);
        for (int32_t i = 0; i < count; i++)
          y[i] = clamp(rescale(sums[i], o->multiplier[k + i], o->shift[k + i]) + o->zero, o->low, o->high);
      }
    }
  }
}
