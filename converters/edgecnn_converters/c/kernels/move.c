/* The same integers in another order, or some of them: how far x moves per step along each dimension of y. */
struct move {
  int32_t size[6], step[6], start;
};

static void move(const struct move *m, const int8_t *x, int8_t *y) {
  int32_t rows = 1;
  for (int32_t d = 0; d < 5; d++) rows *= m->size[d];
  for (int32_t row = 0; row < rows; row++) {
    int32_t from = m->start, rest = row;
    for (int32_t d = 4; d >= 0; rest /= m->size[d], d--) from += rest % m->size[d] * m->step[d];
    for (int32_t i = 0; i < m->size[5]; i++, from += m->step[5]) *y++ = x[from];
  }
}
