/* Rows of `size` bytes, `count` of the `length` that each of `blocks` has. */
struct gather {
  int32_t blocks, length, count, size;
  const int32_t *indices;
};

static void gather(const struct gather *g, const int8_t *x, int8_t *y) {
  for (int32_t block = 0; block < g->blocks; block++) {
    for (int32_t k = 0; k < g->count; k++) {
      const int8_t *row = x + (block * g->length + g->indices[k]) * g->size;
      for (int32_t i = 0; i < g->size; i++) *y++ = row[i];
    }
  }
}
