/* cpu.c - the CPU backend: memory, threads and the table of its kernels. The kernels themselves live beside this file,
 * their vector code in isa/. */
#define _GNU_SOURCE
#include "backend/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory ---- big blocks are mapped on their own and ask for huge pages: a product that walks a matrix by columns
 * would otherwise miss the address cache on every row. */
static const size_t huge_page = (size_t)2 << 20;

static void *cpu_alloc(mn_backend *b, size_t bytes) {
  (void)b;
  if (bytes < huge_page) return mn_alloc_aligned(bytes ? bytes : 64);
  size_t size;
  if (!mn_size_add(bytes, 2 * huge_page, &size)) {
    mn_fail(MN_ERR_MEMORY, "a block of %zu bytes is too large", bytes);
    return NULL;
  }
  size_t body = mn_align(bytes, 4096);
  size = body + huge_page;
  char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    mn_fail(MN_ERR_MEMORY, "out of memory: %zu bytes for tensors were refused; use a smaller batch, segment or model", bytes);
    return NULL;
  }
  char *aligned = (char *)mn_align((size_t)p, huge_page);
  size_t before = (size_t)(aligned - p), after = size - before - body;
  if (before) munmap(p, before);
  if (after) munmap(aligned + body, after);
  madvise(aligned, body, MADV_HUGEPAGE);
  return aligned;
}

static void cpu_free(mn_backend *b, void *p, size_t bytes) {
  (void)b;
  if (!p) return;
  if (bytes < huge_page) free(p);
  else munmap(p, mn_align(bytes, 4096));
}

static mn_status cpu_move(mn_backend *b, void *dst, const void *src, size_t bytes) {
  (void)b;
  if (bytes) memcpy(dst, src, bytes);
  return MN_OK;
}

static mn_status cpu_zero(mn_backend *b, void *dst, size_t bytes) {
  (void)b;
  if (bytes) memset(dst, 0, bytes);
  return MN_OK;
}

static mn_status cpu_sync(mn_backend *b) { /* runs and copies have happened when they return */
  (void)b;
  return MN_OK;
}

/* ---- kernels ---- */
typedef const mn_kernel *const *(*kernel_list)(mn_isa isa, int *n);
static const kernel_list kernel_lists[] = {
#define X(x) mn_cpu_##x##_kernels,
#include "cpu_kernels.inc"
#undef X
    NULL};

/* In their place among those that are sorted already, behind others of the same operation. */
static void add_kernel(mn_cpu *cpu, const mn_kernel *k) {
  int i = cpu->backend.n_kernels++;
  for (; i > 0 && (uintptr_t)cpu->kernels[i - 1]->op > (uintptr_t)k->op; i--) cpu->kernels[i] = cpu->kernels[i - 1];
  cpu->kernels[i] = k;
}

static mn_status join_kernels(mn_cpu *cpu) {
  int total = 0;
  for (int l = 0; kernel_lists[l]; l++) {
    int n = 0;
    kernel_lists[l](cpu->isa, &n);
    total += n;
  }
  cpu->kernels = mn_alloc(sizeof *cpu->kernels * (size_t)(total + 1));
  if (!cpu->kernels) return MN_ERR_MEMORY;
  for (int l = 0; kernel_lists[l]; l++) {
    int n = 0;
    const mn_kernel *const *list = kernel_lists[l](cpu->isa, &n);
    for (int i = 0; i < n; i++) add_kernel(cpu, list[i]);
  }
  cpu->backend.kernels = cpu->kernels;
  cpu->backend.sorted = true;
  return MN_OK;
}

static void cpu_destroy(mn_backend *b) {
  mn_cpu *cpu = b->impl;
  mn_pool_free(b->pool);
  free(cpu->kernels);
  free(cpu);
}

mn_status mn_backend_cpu_new(int threads, mn_backend **out) {
  *out = NULL;
  mn_isa isa;
  MN_TRY(mn_isa_choose(&isa));
  mn_cpu *cpu = mn_calloc(1, sizeof *cpu);
  if (!cpu) return MN_ERR_MEMORY;
  cpu->isa = isa;
  cpu->backend = (mn_backend){
      .name = "cpu",
      .isa = mn_isa_name(isa),
      .alloc = cpu_alloc,
      .free = cpu_free,
      .upload = cpu_move,
      .download = cpu_move,
      .copy = cpu_move,
      .zero = cpu_zero,
      .sync = cpu_sync,
      .fuse_elementwise = true,
      .on_host = true,
      .impl = cpu,
      .destroy = cpu_destroy,
  };
#if MN_WITH_REF
  cpu->backend.fallback = mn_backend_ref();
#endif
  cpu->backend.pool = mn_pool_new(threads);
  mn_status status = cpu->backend.pool ? join_kernels(cpu) : MN_ERR_MEMORY;
  if (status != MN_OK) {
    cpu_destroy(&cpu->backend);
    return status;
  }
  mn_log_write(MN_LOG_INFO, "cpu: %s, %d threads, %d kernels", mn_isa_name(isa), mn_pool_threads(cpu->backend.pool),
               cpu->backend.n_kernels);
  *out = &cpu->backend;
  return MN_OK;
}
