/* Outside the image, and in the channels in front and at the back, is its zero point. */
struct pad {
  struct window window;
  int32_t front, back, zero;
};

static void pad(const struct pad *p, const int8_t *x, int8_t *y) {
  const struct window *w = &p->window;
  for (int32_t oy = 0; oy < w->out_height; oy++) {
    for (int32_t ox = 0; ox < w->out_width; ox++) {
      const int32_t iy = oy - w->top, ix = ox - w->left;
      const int inside = iy >= 0 && iy < w->in_height && ix >= 0 && ix < w->in_width;
      const int8_t *from = inside ? x + (iy * w->in_width + ix) * w->channels : 0;
      for (int32_t i = -p->front; i < w->channels + p->back; i++)
        *y++ = inside && i >= 0 && i < w->channels ? from[i] : (int8_t)p->zero;
    }
  }
}
