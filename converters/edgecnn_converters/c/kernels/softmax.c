/* `powers` holds exp of a logit 0, 1, .. 255 steps below the row's largest, in Q0.31. */
struct softmax {
  int32_t rows, classes;
  const int32_t *powers;
};

/* 1 / x for x in Q12.19 as a fraction in Q0.31, by three steps of Newton and Raphson; `shift` is how much to halve it. */
static int32_t reciprocal(uint32_t x, int32_t *shift) {
  int32_t zeros = 0;
  for (; x < 0x80000000u; x <<= 1) zeros++; /* now 1 to 2 */
  const int32_t half = (int32_t)(x >> 1);
  int32_t y = 1515870810 + high_mul(half, -1010580540); /* 48/17 - 32/17 half, in Q2.29 */
  for (int step = 0; step < 3; step++) y += 4 * high_mul(y, (1 << 29) - high_mul(half, y));
  *shift = 12 - zeros;
  return y >= 1 << 30 ? INT32_MAX : y * 2;
}

static void softmax(const struct softmax *s, const int8_t *x, int8_t *y) {
  for (int32_t row = 0; row < s->rows; row++, x += s->classes, y += s->classes) {
    int32_t largest = -128, over;
    uint32_t total = 0;
    for (int32_t i = 0; i < s->classes; i++) largest = x[i] > largest ? x[i] : largest;
    for (int32_t i = 0; i < s->classes; i++) total += (uint32_t)divide_by_power(s->powers[largest - x[i]], 12);
    const int32_t inverse = reciprocal(total, &over);
    for (int32_t i = 0; i < s->classes; i++) {
      const int32_t share = high_mul(s->powers[largest - x[i]], inverse), shift = over + 23;
      y[i] = clamp((shift > 31 ? 0 : divide_by_power(share, shift)) - 128, -128, 127);
    }
  }
}
