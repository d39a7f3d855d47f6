/* plan_memory.c - the memory of a plan: which pointers follow which storage, offsets in one block, constants, outputs. */
#include "compile/plan_internal.h"

#include <stdlib.h>
#include <string.h>

void *mn_plan_grow(void *p, int n, int *cap, size_t size) {
  if (n < *cap) return p;
  int c = *cap ? 2 * *cap : 32;
  void *q = mn_realloc(p, (size_t)c * size);
  if (q) *cap = c;
  return q;
}

/* Twice: first they are counted, then each has its place among those of its storage. */
static void patch(mn_plan *p, int s, mn_patch patch) {
  mn_storage *m = &p->storages[mn_storage_root(p, s)];
  if (m->patches) m->patches[m->n_patches] = patch;
  m->n_patches++;
}

static void patch_all(mn_plan *p) {
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan_step *s = p->steps[t];
    mn_steps_ahead(p, t);
    if (s->dropped) continue;
    for (int i = 0; i < s->call.n_in; i++) {
      mn_view *v = &s->call.in[i];
      patch(p, s->in_storage[i], (mn_patch){&v->data, mn_dtype_bytes(v->dtype, s->in_offset[i]), s->in_part ? s->in_part[i] : 0});
    }
    for (int j = 0; j < s->call.n_out; j++)
      if (s->out_storage[j] >= 0) patch(p, s->out_storage[j], (mn_patch){&s->call.out[j].data, 0, s->out_part ? s->out_part[j] : 0});
  }
  for (int j = 0; j < p->n_outputs; j++) patch(p, p->output_storage[j], (mn_patch){&p->outputs[j].data, 0, 0});
}

mn_status mn_plan_connect(mn_plan *p) {
  patch_all(p);
  size_t n = 0;
  for (int i = 0; i < p->n_storages; i++) n += (size_t)p->storages[i].n_patches;
  mn_patch *all = mn_arena_alloc(p->arena, (n + 1) * sizeof *all);
  if (!all) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages; i++) {
    mn_storage *m = &p->storages[i];
    m->patches = all;
    all += m->n_patches;
    m->n_patches = 0;
  }
  patch_all(p);
  return MN_OK;
}

/* The most bytes of buffers [0, n) that are alive at one step of `steps`. */
static mn_status most_alive(int n, const mn_lifetime *life, int steps, size_t *most) {
  size_t *begins = mn_calloc((size_t)steps + 1, sizeof *begins), *ends = mn_calloc((size_t)steps + 1, sizeof *ends), alive = 0;
  for (int i = 0; i < n && begins && ends; i++) {
    begins[life[i].first] += mn_align(life[i].bytes, 64);
    ends[life[i].last] += mn_align(life[i].bytes, 64);
  }
  for (int t = 0; t < steps && begins && ends; t++) {
    alive += begins[t];
    if (alive > *most) *most = alive;
    alive -= ends[t];
  }
  const bool ok = begins && ends;
  free(begins);
  free(ends);
  return ok ? MN_OK : MN_ERR_MEMORY;
}

size_t mn_plan_step_bytes(const mn_plan_step *s) {
  return s->parts ? mn_align(s->body->block_bytes, 64) * (size_t)s->parts->n : s->body->block_bytes;
}

mn_status mn_plan_memory(mn_plan *p, bool share) {
  mn_lifetime *life = mn_calloc((size_t)p->n_storages + (size_t)p->n_steps + 1, sizeof *life);
  int *of = mn_alloc(((size_t)p->n_storages + 1) * sizeof *of), n = 0;
  mn_status status = life && of ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages && status == MN_OK; i++) {
    mn_storage *s = &p->storages[i];
    of[i] = -1;
    if (s->kind != MN_STORAGE_TEMP || s->alias >= 0 || s->first < 0) continue;
    of[i] = n;
    life[n++] = (mn_lifetime){.bytes = s->bytes, .first = s->first, .last = s->last};
    p->report.bytes_unshared += mn_align(s->bytes, 64);
  }
  if (status == MN_OK) status = most_alive(n, life, p->n_steps, &p->report.bytes_alive);
  for (int t = 0; t < p->n_steps && status == MN_OK; t++) {
    mn_plan_step *s = p->steps[t];
    if (s->dropped) continue;
    size_t bytes = s->body ? mn_plan_step_bytes(s) : s->workspace_bytes;
    if (!bytes) continue;
    if (bytes > p->report.bytes_workspace) p->report.bytes_workspace = bytes;
    s->buffer = n;
    life[n++] = (mn_lifetime){.bytes = bytes, .first = t, .last = t};
  }
  if (status == MN_OK) status = mn_pass_memory(n, life, share, &p->block_bytes);
  for (int i = 0; i < p->n_storages && status == MN_OK; i++)
    if (of[i] >= 0) p->storages[i].offset = life[of[i]].offset;
  for (int t = 0; t < p->n_steps && status == MN_OK; t++)
    if (p->steps[t]->buffer >= 0) p->steps[t]->workspace_offset = life[p->steps[t]->buffer].offset;
  p->report.bytes_planned = p->block_bytes;
  free(life);
  free(of);
  return status;
}

void mn_plan_place(mn_plan *p, void *block) {
  p->placed = block;
  for (int i = 0; i < p->n_storages; i++) {
    mn_storage *s = &p->storages[i];
    if (s->kind == MN_STORAGE_TEMP && s->alias < 0 && s->first >= 0) mn_storage_bind(p, i, (char *)block + s->offset);
  }
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan_step *s = p->steps[t];
    if (s->dropped || s->buffer < 0) continue;
    s->call.workspace = (char *)block + s->workspace_offset;
    if (s->body && !s->parts) mn_plan_place(s->body, s->call.workspace);
  }
}

mn_status mn_plan_fill_constants(mn_plan *p) {
  for (int pass = 0; pass < 2; pass++) {
    size_t at = 0;
    for (int i = 0; i < p->n_storages; i++) {
      mn_storage *s = &p->storages[i];
      if (s->kind != MN_STORAGE_CONST) continue;
      if (pass) {
        MN_TRY(p->backend->upload(p->backend, (char *)p->const_block + at, s->data, s->bytes));
        mn_storage_bind(p, i, (char *)p->const_block + at);
      }
      at += mn_align(s->bytes, 64);
    }
    if (pass || at == 0) continue;
    p->const_bytes = at;
    p->report.bytes_constants += at;
    p->const_block = p->backend->alloc(p->backend, at);
    if (!p->const_block) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

void mn_plan_count_activations(mn_plan *p) {
  bool *counted = mn_calloc((size_t)p->n_storages + 1, 1);
  for (int t = 0; t < p->n_steps && counted; t++) {
    mn_steps_ahead(p, t);
    for (int i = 0; i < p->steps[t]->call.n_in; i++) {
      int s = mn_storage_root(p, p->steps[t]->in_storage[i]);
      mn_storage *m = &p->storages[s];
      if (counted[s] || m->kind != MN_STORAGE_TEMP || m->phase >= p->steps[t]->call.node->phase) continue;
      counted[s] = true;
      p->report.bytes_activations += m->bytes;
    }
  }
  free(counted);
}
