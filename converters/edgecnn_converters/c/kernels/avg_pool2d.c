/* Over the pixels inside the image, halves away from zero. */
static void avg_pool2d(const struct window *w, const int8_t *x, int8_t *y) {
  for (int32_t oy = 0; oy < w->out_height; oy++) {
    const int32_t y0 = oy * w->stride_y - w->top;
    const struct taps ty = taps_inside(y0, w->kernel_y, 1, w->in_height);
    for (int32_t ox = 0; ox < w->out_width; ox++) {
      const int32_t x0 = ox * w->stride_x - w->left;
      const struct taps tx = taps_inside(x0, w->kernel_x, 1, w->in_width);
      const int32_t count = (ty.last - ty.first) * (tx.last - tx.first);
      for (int32_t channel = 0; channel < w->channels; channel++) {
        int32_t sum = 0;
        for (int32_t iy = y0 + ty.first; iy < y0 + ty.last; iy++) {
          for (int32_t ix = x0 + tx.first; ix < x0 + tx.last; ix++)
            sum += x[(iy * w->in_width + ix) * w->channels + channel];
        }
        *y++ = (int8_t)((sum < 0 ? sum - count / 2 : sum + count / 2) / count);
      }
    }
  }
}
