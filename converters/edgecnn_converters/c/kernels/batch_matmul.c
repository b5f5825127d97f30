/* Rows of a times columns of b, whose next row is `down` away, the next column `across`, of each of `count` matrices. */
struct batch_matmul {
  int32_t count, rows, depth, columns, down, across, zero_a, zero_b, multiplier, shift, zero;
};

static void batch_matmul(const struct batch_matmul *m, const int8_t *a, const int8_t *b, int8_t *y) {
  for (int32_t k = 0; k < m->count; k++, b += m->depth * m->columns) {
    for (int32_t row = 0; row < m->rows; row++, a += m->depth) {
      for (int32_t column = 0; column < m->columns; column++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < m->depth; i++) {
          sum += (a[i] - m->zero_a) * (b[i * m->down + column * m->across] - m->zero_b);
        }
        *y++ = clamp(rescale(sum, m->multiplier, m->shift) + m->zero, -128, 127);
      }
    }
  }
}
