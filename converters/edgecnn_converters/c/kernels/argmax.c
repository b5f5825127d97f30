struct argmax {
  int32_t rows, classes;
};

static void argmax(const struct argmax *s, const int8_t *x, int8_t *y) {
  for (int32_t row = 0; row < s->rows; row++, x += s->classes) {
    int32_t best = 0;
    for (int32_t i = 1; i < s->classes; i++) best = x[i] > x[best] ? i : best;
    y[row] = (int8_t)(best - 128);
  }
}
