struct taps {
  int32_t first, last;
};

/* The taps, first to last - 1, of a kernel whose first tap is at `start`, that lie inside 0 to size - 1. */
static struct taps taps_inside(int32_t start, int32_t kernel, int32_t dilation, int32_t size) {
  struct taps inside = {0, kernel};
  while (inside.first < kernel && start + inside.first * dilation < 0) inside.first++;
  while (inside.last > inside.first && start + (inside.last - 1) * dilation >= size) inside.last--;
  return inside;
}
