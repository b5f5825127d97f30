/* Over all pixels; one over their count is in the multiplier. */
struct mean {
  int32_t pixels, channels, in_zero, multiplier, shift, zero;
};

static void mean(const struct mean *m, const int8_t *x, int8_t *y) {
  for (int32_t channel = 0; channel < m->channels; channel++) {
    int32_t sum = -m->in_zero * m->pixels;
    for (int32_t pixel = 0; pixel < m->pixels; pixel++) sum += x[pixel * m->channels + channel];
    y[channel] = clamp(rescale(sum, m->multiplier, m->shift) + m->zero, -128, 127);
  }
}
