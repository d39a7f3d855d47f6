/* params_owner.c - whose a parameter's bytes are: memory of the set, of a mapped file, or of another set; and when each goes. */
#include "model/params.h"

#include <stdlib.h>

mn_status mn_params_need(const mn_params *p, int i) {
  if (p->owner[i] != MN_PARAM_EMPTY) return MN_OK;
  p->data[i] = p->backend->alloc(p->backend, mn_params_bytes(p, i));
  if (!p->data[i]) return mn_context(MN_ERR_MEMORY, "parameter %s", p->info[i].name);
  p->owner[i] = MN_PARAM_ALLOCATED;
  return MN_OK;
}

mn_status mn_params_store(mn_params *p, int i, mn_dtype type) {
  char shape[96];
  if (p->owner[i] != MN_PARAM_EMPTY) return mn_fail(MN_ERR_ARG, "parameter %s has a value already, in another type", p->info[i].name);
  if (!mn_shape_holds(&p->info[i].shape, type))
    return mn_fail(MN_ERR_SHAPE, "parameter %s is %s and cannot be kept as %s, whose blocks are %lld values of a row", p->info[i].name,
                   mn_shape_str(&p->info[i].shape, shape), mn_dtype_name(type), (long long)mn_block_values(type));
  p->type[i] = type;
  return MN_OK;
}

mn_status mn_params_keep_exact(mn_params *p) {
  for (int i = 0; i < p->n; i++)
    if (mn_block_values(p->type[i]) > 1 || p->type[i] == MN_F16) { /* what meets f16 in many rows is in bf16 where that is faster */
      p->exact_products = true;
      return MN_OK;
    }
  return mn_fail(MN_ERR_CONFIG, "no matrix of this model is kept in blocks or f16: its products never round activations, and there is "
                                "nothing to leave out");
}

mn_status mn_params_writable(const mn_params *p, int i) {
  if (p->owner[i] == MN_PARAM_MAPPED)
    return mn_fail(MN_ERR_ARG, "parameter %s is mapped from %s and is not written: copy it first (mn_params_own), or load the file",
                   p->info[i].name, p->file.path);
  if (p->owner[i] == MN_PARAM_SHARED)
    return mn_fail(MN_ERR_ARG, "parameter %s is shared and is written through its owner alone: copy it first (mn_params_own)",
                   p->info[i].name);
  return mn_params_need(p, i);
}

/* ---- sharing ---- */

static bool shares_from(const mn_params *p, const mn_params *lender) {
  for (int i = 0; i < p->n_lenders; i++)
    if (p->lender[i] == lender || shares_from(p->lender[i], lender)) return true;
  return false;
}

/* `from` stays as long as `to`. */
static mn_status hold(mn_params *to, mn_params *from) {
  if (to == from) return MN_OK;
  for (int i = 0; i < to->n_lenders; i++)
    if (to->lender[i] == from) return MN_OK;
  mn_params **list = mn_realloc(to->lender, (size_t)(to->n_lenders + 1) * sizeof *list);
  if (!list) return MN_ERR_MEMORY;
  to->lender = list;
  list[to->n_lenders++] = from;
  atomic_fetch_add(&from->holders, 1);
  return MN_OK;
}

static void let_lenders_go(mn_params *p) {
  for (int i = 0; i < p->n_lenders; i++) mn_params_free(p->lender[i]);
  free(p->lender);
  p->lender = NULL;
  p->n_lenders = 0;
}

static mn_status check_pair(const mn_params *to, int i, const mn_params *from, int k) {
  const mn_param_info *a = &to->info[i], *b = &from->info[k];
  char as[96], bs[96];
  if (to->backend != from->backend) return mn_fail(MN_ERR_ARG, "%s cannot share %s: they lie on two backends", a->name, b->name);
  if (to->type[i] != from->type[k] || !mn_shape_equal(&a->shape, &b->shape))
    return mn_fail(MN_ERR_SHAPE, "%s is %s %s and cannot share %s, which is %s %s", a->name, mn_dtype_name(to->type[i]),
                   mn_shape_str(&a->shape, as), b->name, mn_dtype_name(from->type[k]), mn_shape_str(&b->shape, bs));
  if (to->owner[i] != MN_PARAM_EMPTY)
    return mn_fail(MN_ERR_ARG, "%s has memory already: it is shared before it is drawn, loaded or bound", a->name);
  if (from->owner[k] == MN_PARAM_EMPTY) return mn_fail(MN_ERR_ARG, "%s cannot be shared: it has no value yet", b->name);
  if (k >= from->n_model && k < from->n)
    return mn_fail(MN_ERR_ARG, "%s cannot be shared: it is of a training step alone and goes with it", b->name);
  if (shares_from(from, to)) return mn_fail(MN_ERR_ARG, "%s cannot share %s: its set shares from this one", a->name, b->name);
  return MN_OK;
}

mn_status mn_params_share(mn_params *to, const char *name, mn_params *from, const char *of) {
  const int i = mn_params_find(to, name), k = mn_params_find(from, of);
  if (i < 0 || k < 0) return mn_fail(MN_ERR_ARG, "there is no parameter %s", i < 0 ? name : of);
  MN_TRY(check_pair(to, i, from, k));
  MN_TRY(hold(to, from));
  to->data[i] = from->data[k];
  to->owner[i] = MN_PARAM_SHARED;
  return MN_OK;
}

/* ---- copying ---- */

static mn_status own(mn_params *p, int i) {
  mn_backend *b = p->backend;
  const size_t bytes = mn_params_bytes(p, i);
  void *data = b->alloc(b, bytes);
  if (!data) return mn_context(MN_ERR_MEMORY, "parameter %s", p->info[i].name);
  mn_status status = p->owner[i] == MN_PARAM_MAPPED ? b->upload(b, data, p->data[i], bytes) : b->copy(b, data, p->data[i], bytes);
  if (status == MN_OK) status = mn_params_check_files(p);
  if (status != MN_OK) {
    b->free(b, data, bytes);
    return status;
  }
  p->data[i] = data;
  p->owner[i] = MN_PARAM_ALLOCATED;
  return MN_OK;
}

static void close_file(mn_params *p) {
  if (p->file.file) p->file.close(p->file.file);
  p->file = (mn_param_file){0};
}

mn_status mn_params_own(mn_params *p) {
  if (atomic_load(&p->holders) > 1) return mn_fail(MN_ERR_ARG, "parameters that other sets share stay where they are");
  for (int i = 0; i < p->n_all; i++)
    if (p->owner[i] == MN_PARAM_MAPPED || p->owner[i] == MN_PARAM_SHARED) MN_TRY(own(p, i));
  close_file(p);
  let_lenders_go(p);
  return MN_OK;
}

/* ---- lasting and ending ---- */

mn_status mn_params_check_files(const mn_params *p) {
  if (p->file.file) MN_TRY(p->file.intact(p->file.file));
  for (int i = 0; i < p->n_lenders; i++) MN_TRY(mn_params_check_files(p->lender[i]));
  return MN_OK;
}

void mn_params_free(mn_params *p) {
  if (!p || atomic_fetch_sub(&p->holders, 1) > 1) return;
  for (int i = 0; i < p->n_all; i++)
    if (p->owner[i] == MN_PARAM_ALLOCATED) p->backend->free(p->backend, p->data[i], mn_params_bytes(p, i));
  close_file(p);
  let_lenders_go(p);
  mn_arena_free(p->arena);
  free(p);
}
