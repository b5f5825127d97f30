/* Right shifts of negative numbers keep the sign, as they do in every compiler that this is meant for. */

static inline int32_t high_mul(int32_t a, int32_t b) { /* a * b / 2^31, halves up */
  return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

static inline int32_t divide_by_power(int32_t x, int32_t exponent) { /* x / 2^exponent, halves away from zero; 0 to 31 */
  const int32_t mask = (int32_t)((1u << exponent) - 1);
  return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0));
}

static inline int8_t clamp(int32_t x, int32_t low, int32_t high) { return (int8_t)(x < low ? low : x > high ? high : x); }
