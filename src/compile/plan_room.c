/* plan_room.c - where a plan's intermediate results and its outputs lie: in memory of its own, or in a room that several plans share, each
 * while it runs. A program compiles a plan for every length of segment, and runs one at a time: with a block each, a long prompt's would stand
 * beside a token's for good. */
#include "compile/plan_internal.h"

#include <stdlib.h>

typedef struct room_block {
  void *data;
  size_t bytes;
} room_block;

struct mn_plan_room {
  mn_backend *backend;
  room_block block, outputs;
};

mn_status mn_plan_room_new(mn_backend *backend, mn_plan_room **out) {
  if (!(*out = mn_calloc(1, sizeof **out))) return MN_ERR_MEMORY;
  (*out)->backend = backend;
  return MN_OK;
}

void mn_plan_room_free(mn_plan_room *r) {
  if (!r) return;
  if (r->block.data) r->backend->free(r->backend, r->block.data, r->block.bytes);
  if (r->outputs.data) r->backend->free(r->backend, r->outputs.data, r->outputs.bytes);
  free(r);
}

size_t mn_plan_room_bytes(const mn_plan_room *r) { return r->block.bytes + r->outputs.bytes; }

/* At least so many bytes: what lies there is of a run that is over. */
static mn_status need(mn_backend *b, room_block *block, size_t bytes, const char *what) {
  if (bytes <= block->bytes) return MN_OK;
  if (block->data) b->free(b, block->data, block->bytes);
  *block = (room_block){b->alloc(b, bytes), 0};
  if (!block->data) return mn_context(MN_ERR_MEMORY, "the plan's %s", what);
  block->bytes = bytes;
  return MN_OK;
}

static size_t place_outputs(mn_plan *p, char *block) {
  size_t at = 0;
  for (int i = 0; i < p->n_storages; i++) {
    mn_storage *s = &p->storages[i];
    if (s->kind != MN_STORAGE_OUTPUT || s->alias >= 0) continue;
    if (block) mn_storage_bind(p, i, block + at);
    at += mn_align(s->bytes, 64);
  }
  return at;
}

mn_status mn_plan_settle(mn_plan *p) {
  room_block block = {p->block, p->block ? p->block_bytes : 0}, outputs = {p->output_block, p->output_block ? p->output_bytes : 0};
  if (!p->output_bytes) p->output_bytes = p->report.bytes_outputs = place_outputs(p, NULL);
  mn_status status = need(p->backend, p->room ? &p->room->block : &block, p->block_bytes, "intermediate results");
  if (status == MN_OK) status = need(p->backend, p->room ? &p->room->outputs : &outputs, p->output_bytes, "results");
  if (!p->room) p->block = block.data, p->output_block = outputs.data;
  MN_TRY(status);
  void *at = p->room ? p->room->block.data : p->block, *outputs_at = p->room ? p->room->outputs.data : p->output_block;
  if (!p->placed || p->placed != at) mn_plan_place(p, at);
  if (p->outputs_placed != outputs_at && outputs_at) place_outputs(p, outputs_at);
  p->outputs_placed = outputs_at;
  return MN_OK;
}
