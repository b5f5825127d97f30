static inline int32_t rescale(int32_t x, int32_t multiplier, int32_t shift) { /* x * multiplier / 2^31 * 2^shift */
  if (shift > 0) return high_mul(x * (1 << shift), multiplier);
  return divide_by_power(high_mul(x, multiplier), -shift);
}
