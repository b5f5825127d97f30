/* Lets a folder fail as a network path does that goes away: LD_PRELOAD this, with
 *
 *   VANISH=FOLDER         calls on paths below it, or on files opened there, count as accesses
 *   VANISH_AFTER=N        from the access after N on, every one fails with VANISH_ERRNO (ESTALE), in all processes
 *   VANISH_STATE=FILE     holds one byte per access; processes share it
 *
 * Pages that are mapped already stay, as they may with NFS.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char inside[65536]; /* by file descriptor */

static int gone(void) {
  const char *state = getenv("VANISH_STATE"), *after = getenv("VANISH_AFTER"), *how = getenv("VANISH_ERRNO");
  static int (*real)(const char *, int, ...);
  struct stat about;
  if (!state) return 0;
  if (!real) real = dlsym(RTLD_NEXT, "open");
  int fd = real(state, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (fd < 0) return 0;
  if (write(fd, ".", 1) != 1) about.st_size = 0;
  int seen = fstat(fd, &about) == 0 ? (int)about.st_size : 0;
  close(fd);
  if (!after || seen <= atoi(after)) return 0;
  errno = how ? atoi(how) : ESTALE;
  return 1;
}

static int below(const char *path) {
  const char *folder = getenv("VANISH");
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}
static int known(int fd) { return fd >= 0 && fd < (int)sizeof inside && inside[fd]; }
static int noted(int fd, int is) {
  if (fd >= 0 && fd < (int)sizeof inside) inside[fd] = (char)is;
  return fd;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { \
    va_list more; \
    va_start(more, flags); \
    mode = va_arg(more, mode_t); \
    va_end(more); \
  }
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    int is = below(path); \
    if (is && gone()) return -1; \
    return noted(real(path, flags, mode), is); \
  }
#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    int is = below(path) || (path[0] != '/' && known(at)); \
    if (is && gone()) return -1; \
    return noted(real(at, path, flags, mode), is); \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int fd, void *to, size_t size) {
  REAL(read);
  return known(fd) && gone() ? -1 : real(fd, to, size);
}
ssize_t pread(int fd, void *to, size_t size, off_t at) {
  REAL(pread);
  return known(fd) && gone() ? -1 : real(fd, to, size, at);
}
ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
  REAL(pread64);
  return known(fd) && gone() ? -1 : real(fd, to, size, at);
}
int stat(const char *path, struct stat *to) {
  REAL(stat);
  return below(path) && gone() ? -1 : real(path, to);
}
int stat64(const char *path, struct stat64 *to) {
  REAL(stat64);
  return below(path) && gone() ? -1 : real(path, to);
}
int fstat(int fd, struct stat *to) {
  REAL(fstat);
  return known(fd) && gone() ? -1 : real(fd, to);
}
int fstat64(int fd, struct stat64 *to) {
  REAL(fstat64);
  return known(fd) && gone() ? -1 : real(fd, to);
}
DIR *opendir(const char *path) {
  REAL(opendir);
  return below(path) && gone() ? NULL : real(path);
}
void *mmap(void *at, size_t size, int how, int flags, int fd, off_t from) {
  REAL(mmap);
  return known(fd) && gone() ? MAP_FAILED : real(at, size, how, flags, fd, from);
}
void *mmap64(void *at, size_t size, int how, int flags, int fd, off64_t from) {
  REAL(mmap64);
  return known(fd) && gone() ? MAP_FAILED : real(at, size, how, flags, fd, from);
}
int close(int fd) {
  REAL(close);
  noted(fd, 0);
  return real(fd);
}
