/* Weights are [outputs][inputs]; the bias holds what the input's zero point adds. */
struct fully_connected {
  int32_t inputs, count;
  const int8_t *weights;
  struct outputs outputs;
};

static void fully_connected(const struct fully_connected *f, const int8_t *x, int8_t *y) {
  filter(x, f->weights, f->inputs, &f->outputs, 0, f->count, 1, y);
}
