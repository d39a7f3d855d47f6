/* scope_report.c - what a model says besides its result: reports, losses, and tensors handed from room to room; see scope.h. */
#include "nn/scope_internal.h"

#include <string.h>

/* ---- reports ---- */
void mn_report(mn_scope *s, const char *name, mn_tensor *value) {
  mn_scope_root *r = s->r;
  const char *full = value ? mn_scope_full_state(s, name) : NULL;
  if (!full || !mn_scope_grow(r, &r->reports, r->n_reports, &r->cap_reports, sizeof *r->reports)) return;
  r->reports[r->n_reports++] = (mn_scope_report){full, value, s->frame};
}

int mn_scope_reports(const mn_scope *s, const char *const **names, mn_tensor *const **values) {
  mn_scope_root *r = s->r;
  r->report_names = mn_scope_alloc(r, (size_t)r->n_reports, sizeof *r->report_names);
  r->report_values = mn_scope_alloc(r, (size_t)r->n_reports, sizeof *r->report_values);
  *names = r->report_names;
  *values = r->report_values;
  if (!r->report_names || !r->report_values) return 0;
  for (int i = 0; i < r->n_reports; i++) r->report_names[i] = r->reports[i].name, r->report_values[i] = r->reports[i].value;
  return r->n_reports;
}

/* ---- losses ---- */
void mn_loss(mn_scope *s, const char *name, mn_tensor *value, double weight) {
  mn_scope_root *r = s->r;
  const char *full = value ? mn_scope_full_state(s, name) : NULL;
  if (!full) return;
  if (value->shape.ndim != 0 || !mn_dtype_is_float(value->dtype)) {
    char shape[96];
    mn_graph_fault(r->graph, MN_ERR_SHAPE, "loss %s is %s %s, not one number", full, mn_dtype_name(value->dtype),
                   mn_shape_str(&value->shape, shape));
    return;
  }
  if (!mn_scope_grow(r, &r->losses, r->n_losses, &r->cap_losses, sizeof *r->losses)) return;
  r->losses[r->n_losses++] = (mn_built_loss){full, mn_cast(r->graph, value, mn_scope_exact(s)), weight};
}

int mn_scope_losses(const mn_scope *s, const mn_built_loss **losses) {
  mn_scope_root *r = s->r;
  int n = 0;
  for (int i = 0; i < r->n_losses; i++) { /* of one name and weight: added up */
    int k = 0;
    while (k < n && (strcmp(r->losses[k].name, r->losses[i].name) != 0 || r->losses[k].weight != r->losses[i].weight)) k++;
    if (k < n) r->losses[k].value = mn_add(r->graph, r->losses[k].value, r->losses[i].value);
    else r->losses[n++] = r->losses[i];
  }
  r->n_losses = n;
  *losses = r->losses;
  return n;
}

mn_tensor *mn_scope_total_loss(mn_scope *s) {
  const mn_built_loss *losses;
  mn_tensor *total = NULL;
  for (int i = 0, n = mn_scope_losses(s, &losses); i < n; i++) {
    mn_tensor *part = mn_mul_scalar(s->r->graph, losses[i].value, losses[i].weight);
    total = total ? mn_add(s->r->graph, total, part) : part;
  }
  return total;
}

/* ---- shares ---- */
void mn_share(mn_scope *s, const char *name, mn_tensor *t) {
  mn_scope_root *r = s->r;
  const char *own = t ? mn_arena_strdup(r->arena, name) : NULL;
  if (!own || !mn_scope_grow(r, &r->shares, r->n_shares, &r->cap_shares, sizeof *r->shares)) return;
  r->shares[r->n_shares++] = (mn_scope_share){own, t};
}

mn_tensor *mn_shared(mn_scope *s, const char *name) {
  mn_scope_root *r = s->r;
  for (int i = r->n_shares - 1; i >= 0; i--)
    if (strcmp(r->shares[i].name, name) == 0) return mn_capture(r->graph, r->shares[i].value);
  return NULL;
}
