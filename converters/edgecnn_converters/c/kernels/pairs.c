/* Two operands that broadcast: how far each moves per step along each dimension of the output, 0 where it stays. */
struct pairs {
  int32_t size[4], step_a[4], step_b[4];
};

/* Index k of the output (it grows by one) to the places in a and b; called for the start of each innermost row. */
static void row_of(const struct pairs *p, int32_t row, int32_t *a, int32_t *b) {
  *a = *b = 0;
  for (int32_t d = 2; d >= 0; row /= p->size[d], d--) {
    *a += row % p->size[d] * p->step_a[d];
    *b += row % p->size[d] * p->step_b[d];
  }
}
