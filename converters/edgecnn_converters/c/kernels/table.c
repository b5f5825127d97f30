/* A function of one int8: its 256 values, that of -128 first. */
static void table(const int8_t *values, int32_t size, const int8_t *x, int8_t *y) {
  for (int32_t i = 0; i < size; i++) y[i] = values[x[i] + 128];
}
