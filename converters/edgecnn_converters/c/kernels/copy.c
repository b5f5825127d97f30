/* Rows of `size` bytes; those of y start `step` bytes apart. */
static void copy(int32_t rows, int32_t size, int32_t step, const int8_t *x, int8_t *y) {
  for (int32_t row = 0; row < rows; row++) {
    for (int32_t i = 0; i < size; i++) y[row * step + i] = x[row * size + i];
  }
}
