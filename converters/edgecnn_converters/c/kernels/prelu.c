/* A slope for each channel below zero. */
struct prelu {
  int32_t pixels, channels, zero_x, zero_slope, multiplier_above, shift_above, multiplier_below, shift_below, zero;
};

static void prelu(const struct prelu *p, const int8_t *x, const int8_t *slopes, int8_t *y) {
  for (int32_t pixel = 0; pixel < p->pixels; pixel++) {
    for (int32_t i = 0; i < p->channels; i++) {
      const int32_t v = *x++ - p->zero_x;
      const int32_t made = v >= 0 ? rescale(v, p->multiplier_above, p->shift_above)
                                  : rescale(v * (slopes[i] - p->zero_slope), p->multiplier_below, p->shift_below);
      *y++ = clamp(made + p->zero, -128, 127);
    }
  }
}
