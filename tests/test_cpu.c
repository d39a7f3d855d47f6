/* What must be true of the CPU backend itself: the instruction set is chosen as asked, memory is aligned and usable. */
#include "test.h"

#include "backend/cpu/cpu.h"

static void isa_choice(void) {
  mn_isa best = mn_isa_best();
  for (mn_isa i = 0; i < MN_ISA_LEVELS; i++) {
    setenv("MNEME_CPU_ISA", mn_isa_name(i), 1);
    mn_backend *b = NULL;
    mn_status s = mn_backend_cpu_new(1, &b);
    if (i <= best) {
      CHECK(s == MN_OK && mn_cpu_isa(b) == i, "%s: %s", mn_isa_name(i), mn_message());
    } else {
      CHECK(s == MN_ERR_UNSUPPORTED && !b && strstr(mn_message(), mn_isa_name(best)), "%s", mn_message());
    }
    mn_backend_free(b);
  }
  setenv("MNEME_CPU_ISA", "sse9", 1);
  mn_backend *b = NULL;
  CHECK(mn_backend_cpu_new(1, &b) == MN_ERR_CONFIG && strstr(mn_message(), "sse9"), "%s", mn_message());
  unsetenv("MNEME_CPU_ISA");
}

static void memory(void) {
  mn_backend *b = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &b));
  if (!b) return;
  const size_t sizes[] = {0, 1, 64, 4096, ((size_t)2 << 20) - 1, (size_t)2 << 20, ((size_t)5 << 20) + 3};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    unsigned char *p = b->alloc(b, sizes[i]);
    CHECK(p && (uintptr_t)p % 64 == 0, "%zu bytes", sizes[i]);
    if (!p) continue;
    if (sizes[i]) {
      unsigned char mark[2] = {1, 2}, back = 0;
      CHECK_OK(b->upload(b, p, mark, 1));
      CHECK_OK(b->upload(b, p + sizes[i] - 1, mark + 1, 1));
      CHECK_OK(b->download(b, &back, p + sizes[i] - 1, 1));
      CHECK(back == 2, "last byte of %zu", sizes[i]);
    }
    b->free(b, p, sizes[i]);
  }
  CHECK(!b->alloc(b, SIZE_MAX - 5), "an impossible size is refused");
  mn_backend_free(b);
}

int main(void) {
  RUN(isa_choice);
  RUN(memory);
  return test_end();
}
