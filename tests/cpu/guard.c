/* posix_memalign, from which XLA has its arrays, with read-only pages before and behind each block.

   A kernel that writes beyond an array then ends the process at once, where otherwise it would damage whatever lies
   there, and perhaps be found out much later. A block touches the page behind it or the one before it, at random. Freed
   blocks can be neither read nor written, and their addresses are not given out again.

   cc -O2 -shared -fPIC -o guard.so guard.c && LD_PRELOAD=$PWD/guard.so python ... */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define SPACE ((size_t)1 << 44) /* of addresses, not of memory */
#define MAP (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static char *base;
static _Atomic size_t used;
static int (*plain_memalign)(void **, size_t, size_t);
static void (*plain_free)(void *);

__attribute__((constructor)) static void reserve(void) {
  plain_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  plain_free = dlsym(RTLD_NEXT, "free");
  char *space = mmap(NULL, SPACE, PROT_NONE, MAP, -1, 0);
  if (space == MAP_FAILED) abort();
  base = space;
}

static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* A block: a page that holds its length, a read-only page, the data, a read-only page. */
int posix_memalign(void **result, size_t alignment, size_t size) {
  if (!base || alignment > PAGE || size == 0) {
    if (!plain_memalign) plain_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    return plain_memalign(result, alignment, size);
  }
  size_t data = up(size, PAGE), total = data + 3 * PAGE;
  size_t at = atomic_fetch_add(&used, total);
  if (at + total > SPACE) return ENOMEM;
  char *block = base + at, *start = block + 2 * PAGE;
  if (mprotect(block, PAGE, PROT_READ | PROT_WRITE) || mprotect(block + PAGE, PAGE, PROT_READ) ||
      mprotect(start, data, PROT_READ | PROT_WRITE) || mprotect(start + data, PAGE, PROT_READ))
    return ENOMEM;
  *(size_t *)block = total;
  int at_the_end = (at / PAGE * 2654435761u >> 16) & 1;
  *result = at_the_end ? start + data - up(size, alignment) : start;
  return 0;
}

void free(void *pointer) {
  char *at = pointer;
  if (base && at >= base && at < base + SPACE) {
    char *block = (char *)((uintptr_t)at & ~(PAGE - 1)) - 2 * PAGE; /* the data begins in its first page */
    mmap(block, *(size_t *)block, PROT_NONE, MAP | MAP_FIXED, -1, 0);
    return;
  }
  if (!plain_free) plain_free = dlsym(RTLD_NEXT, "free");
  plain_free(pointer);
}
