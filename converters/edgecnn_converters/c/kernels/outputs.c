/* How sums become outputs: a bias, a multiplier and a shift for each channel. */
struct outputs {
  const int32_t *bias, *multiplier;
  const int8_t *shift;
  int32_t zero, low, high;
};
