/* How sums become outputs: one bias, multiplier and shift for each output channel. */
struct outputs {
  const int32_t *bias, *multiplier;
  const int8_t *shift;
  int32_t zero, low, high;
};

/* The sums of products of x with one to four filters, which lie one after another. */
static void dot(const int8_t *x, const int8_t *filters, int32_t length, int32_t count, int32_t *sums) {
  const int8_t *f0 = filters, *f1 = f0 + length, *f2 = f1 + length, *f3 = f2 + length;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  if (count == 4) {
    for (int32_t i = 0; i < length; i++) {
      const int32_t v = x[i];
      s0 += v * f0[i];
      s1 += v * f1[i];
      s2 += v * f2[i];
      s3 += v * f3[i];
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
    return;
  }
  for (int32_t k = 0; k < count; k++) {
    s0 = 0;
    for (int32_t i = 0; i < length; i++) s0 += x[i] * filters[k * length + i];
    sums[k] = s0;
  }
}
