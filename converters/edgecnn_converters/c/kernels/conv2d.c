/* Weights are [out_channels][kernel_y][kernel_x][channels / groups]. What the input's zero point adds to the sums is in
   the bias already, so the input is taken as it is; outside the image it is its zero point. */
struct conv2d {
  struct window window;
  int32_t out_channels, groups, in_zero;
  const int8_t *weights;
  struct outputs outputs;
};

/* What the filters of a group see from (y0, x0) on: the input itself where the kernel is one point, else a copy. */
static const int8_t *patch_at(const struct conv2d *c, const int8_t *x, int32_t y0, int32_t x0, int32_t group,
                              int8_t *copy) {
  const struct window *w = &c->window;
  const int32_t depth = w->channels / c->groups;
  int8_t *to = copy;
  for (int32_t ky = 0; ky < w->kernel_y; ky++) {
    for (int32_t kx = 0; kx < w->kernel_x; kx++, to += depth) {
      const int32_t iy = y0 + ky * w->dilation_y, ix = x0 + kx * w->dilation_x;
      const int inside = iy >= 0 && iy < w->in_height && ix >= 0 && ix < w->in_width;
      const int8_t *from = inside ? x + (iy * w->in_width + ix) * w->channels + group * depth : 0;
      if (inside && w->kernel_y == 1 && w->kernel_x == 1) return from;
      for (int32_t i = 0; i < depth; i++) to[i] = inside ? from[i] : (int8_t)c->in_zero;
    }
  }
  return copy;
}

static void conv2d(const struct conv2d *c, const int8_t *x, int8_t *y, int8_t *patch) {
  const struct window *w = &c->window;
  const int32_t per_group = c->out_channels / c->groups;
  const int32_t length = w->kernel_y * w->kernel_x * w->channels / c->groups;
  for (int32_t oy = 0; oy < w->out_height; oy++) {
    for (int32_t ox = 0; ox < w->out_width; ox++) {
      for (int32_t group = 0; group < c->groups; group++, y += per_group) {
        const int8_t *seen = patch_at(c, x, oy * w->stride_y - w->top, ox * w->stride_x - w->left, group, patch);
        filter(seen, c->weights, length, &c->outputs, group * per_group, per_group, 0, y);
      }
    }
  }
}
