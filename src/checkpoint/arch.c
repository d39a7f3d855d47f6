/* arch.c - which architecture a checkpoint has, and which of its tensors is which parameter. */
#include "checkpoint/arch.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "base/table.h"
#include "base/text.h"
#include "memory/attention.h"

/* ---- which ---- */
static bool is_word(const char *words, const char *word) {
  const size_t n = strlen(word);
  for (const char *at = words; at && n && (at = strstr(at, word)); at += n)
    if ((at == words || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
  return false;
}

static mn_status unknown(const mn_settings *s, const char *key, const char *word) {
  mn_text names = {0};
  char shown[MN_PRINTABLE];
  for (int i = 0; i < mn_arch_count(); i++) {
    const mn_arch_def *a = mn_arch_at(i);
    const char *words = s->form == MN_FORM_HF ? a->types : a->gguf;
    if (s->form == MN_FORM_GGUF && a->is) continue; /* another has its word, too */
    if (words) mn_text_addf(&names, "%s%s", names.len ? " " : "", words);
  }
  mn_status status = mn_text_status(&names);
  if (status == MN_OK)
    status = mn_fail(MN_ERR_UNSUPPORTED, "%s: %s is '%s', which is not opened; these are: %s", s->file, key, mn_printable(word, shown),
                     names.data ? names.data : "none");
  mn_text_free(&names);
  return status;
}

/* The head counts: a LlamaForSequenceClassification is no language model. */
static mn_status check_class(const mn_settings *s, const mn_arch_def *a) {
  const mn_value *list = mn_value_get(s->map, "architectures"),
                 *first = list && list->kind == MN_LIST && list->count ? list->as.items[0] : NULL;
  char shown[MN_PRINTABLE];
  if (!first || first->kind != MN_TEXT || is_word(a->classes, first->as.text)) return MN_OK;
  return mn_fail(MN_ERR_UNSUPPORTED, "%s: architectures is '%s', which is not opened; of this model_type these are: %s", s->file,
                 mn_printable(first->as.text, shown), a->classes);
}

mn_status mn_arch_of(const mn_settings *s, const mn_arch_def **out) {
  const bool hf = s->form == MN_FORM_HF;
  const mn_value *type = hf ? mn_value_get(s->map, "model_type") : NULL;
  if (hf && (!type || type->kind != MN_TEXT)) return mn_fail(MN_ERR_FORMAT, "%s: model_type is not there, or no text", s->file);
  const char *word = hf ? type->as.text : s->word;
  *out = NULL;
  for (int i = 0; i < mn_arch_count(); i++) {
    const mn_arch_def *a = mn_arch_at(i);
    if (is_word(hf ? a->types : a->gguf, word) && (a->is ? a->is(s) : !*out)) *out = a;
  }
  if (*out) return hf ? check_class(s, *out) : MN_OK;
  return unknown(s, hf ? "model_type" : "general.architecture", word);
}

mn_status mn_arch_recipe(mn_settings *s, const mn_arch_def *a, const mn_value **out) {
  MN_TRY(a->recipe(s, out));
  const mn_value *type = mn_value_get(*out, "type");
  if (type && type->kind == MN_TEXT && !strcmp(type->as.text, "encoder")) return MN_OK;
  return mn_setting_only_bool(s, "is_causal", "attention.causal", true);
}

int64_t mn_arch_mixer_key(const mn_mixer *mixer, const char *key) {
  return mn_field_int(mn_field_find(mixer->def->fields, key), mixer->config);
}

/* ---- names ---- */

bool mn_arch_fits(const char *pattern, const char *name, int *layer) {
  *layer = -1;
  for (; *pattern; pattern++) {
    if (*pattern == '*') return true;
    if (*pattern != '#') {
      if (*name++ != *pattern) return false;
      continue;
    }
    if (!isdigit((unsigned char)*name)) return false;
    int n = 0;
    for (; isdigit((unsigned char)*name) && n < 100000; name++) n = 10 * n + (*name - '0');
    *layer = n;
  }
  return !*name;
}

const char *mn_arch_filled_with(const char *pattern, int layer, int64_t expert, char buf[MN_ARCH_NAME]) {
  size_t n = 0;
  for (; *pattern && n + 24 < MN_ARCH_NAME; pattern++) {
    if (*pattern == '#') n += (size_t)snprintf(buf + n, MN_ARCH_NAME - n, "%d", layer);
    else if (*pattern == '@') n += (size_t)snprintf(buf + n, MN_ARCH_NAME - n, "%lld", (long long)expert);
    else buf[n++] = *pattern;
  }
  buf[n] = 0;
  return buf;
}
const char *mn_arch_filled(const char *pattern, int layer, char buf[MN_ARCH_NAME]) { return mn_arch_filled_with(pattern, layer, 0, buf); }

typedef struct matching {
  const mn_arch_def *a;
  const mn_checkpoint *c;
  const mn_model *m;
  const mn_params *p;
  mn_arch_piece *pieces;
  bool *known; /* of each tensor of the checkpoint */
} matching;

static const char *pattern_of(const matching *x, const mn_arch_tensor *row) {
  return mn_checkpoint_form_of(x->c) == MN_FORM_HF ? row->hf : row->gguf;
}
static unsigned how_of(const matching *x, const mn_arch_tensor *row) {
  return mn_checkpoint_form_of(x->c) == MN_FORM_HF ? row->hf_how : row->gguf_how;
}

/* The architecture's prefix may be missing from all names of a file. */
static const mn_checkpoint_tensor *find(const matching *x, const char *name) {
  const mn_checkpoint_tensor *t = mn_checkpoint_find(x->c, name);
  const size_t n = x->a->prefix && mn_checkpoint_form_of(x->c) == MN_FORM_HF ? strlen(x->a->prefix) : 0;
  return !t && n && !strncmp(name, x->a->prefix, n) ? mn_checkpoint_find(x->c, name + n) : t;
}

static mn_status missing(const matching *x, const char *param, const char *name) {
  const int n = mn_checkpoint_count(x->c);
  const char **names = mn_alloc((size_t)(n + 1) * sizeof *names), *near = NULL;
  char shown[MN_PRINTABLE], other[MN_PRINTABLE];
  if (!names) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) names[i] = mn_checkpoint_at(x->c, i)->name;
  near = mn_nearest(name, names, n);
  free(names);
  return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' (%s) is missing%s%s%s", mn_checkpoint_path(x->c), mn_printable(name, shown), param,
                 near ? "; there is '" : "", near ? mn_printable(near, other) : "", near ? "'" : "");
}

/* Another row before this one says the same: a parameter may have several names in the other form. */
static bool is_again(const matching *x, const mn_arch_tensor *row) {
  for (const mn_arch_tensor *r = x->a->tensors; r != row; r++)
    if (r->param && pattern_of(x, r) && !strcmp(r->param, row->param) && !strcmp(pattern_of(x, r), pattern_of(x, row))) return true;
  return false;
}

/* Rows of the file's tensor before this parameter's, and of all its parameters. */
static mn_status parts_of(const matching *x, const mn_arch_tensor *row, int layer, int64_t *before, int64_t *all) {
  char name[MN_ARCH_NAME];
  *before = *all = 0;
  for (const mn_arch_tensor *r = x->a->tensors; r->param || r->hf || r->gguf; r++) {
    const char *pattern = pattern_of(x, r);
    if (!r->param || !pattern || strcmp(pattern, pattern_of(x, row)) != 0 || is_again(x, r)) continue;
    const int i = mn_params_find(x->p, mn_arch_filled(r->param, layer, name));
    if (i < 0) continue;
    if (r == row) *before = *all;
    *all += x->p->info[i].shape.dim[0];
  }
  return *all ? MN_OK : mn_fail(MN_ERR_INTERNAL, "no part of %s", row->hf);
}

/* Equal, but for axes of size 1. */
static bool same_shape(const mn_shape *a, const mn_shape *b) {
  int i = 0, k = 0;
  for (;;) {
    while (i < a->ndim && a->dim[i] == 1) i++;
    while (k < b->ndim && b->dim[k] == 1) k++;
    if (i == a->ndim || k == b->ndim) return i == a->ndim && k == b->ndim;
    if (a->dim[i++] != b->dim[k++]) return false;
  }
}

static mn_status check_shape(const matching *x, int i, const mn_arch_piece *piece, int64_t rows) {
  const mn_checkpoint_tensor *t = piece->tensor;
  mn_shape want = x->p->info[i].shape;
  char is[96], should[96], shown[MN_PRINTABLE];
  if (piece->how & (MN_T_PART | MN_T_ROWS)) want.dim[0] = rows;
  if (piece->each) {
    want.ndim--;
    for (int k = 0; k < want.ndim; k++) want.dim[k] = want.dim[k + 1];
  }
  if (piece->how & MN_T_TRANSPOSED && want.ndim == 2) {
    const int64_t out = want.dim[0];
    want.dim[0] = want.dim[1];
    want.dim[1] = out;
  }
  if (same_shape(&want, &t->shape)) return MN_OK;
  if (piece->how & MN_T_TURNED && (t->shape.ndim != 3 || t->shape.dim[1] != want.dim[want.ndim - 1]))
    return mn_fail(MN_ERR_SHAPE, "%s: tensor '%s' is %s, and should be turned matrices of the width %lld (%s)", t->file,
                   mn_printable(t->name, shown), mn_shape_str(&t->shape, is), (long long)want.dim[want.ndim - 1], x->p->info[i].name);
  if (piece->how & MN_T_RESHAPED && mn_shape_count(&want) == mn_shape_count(&t->shape)) return MN_OK;
  return mn_fail(MN_ERR_SHAPE, "%s: tensor '%s' is %s, and the settings make it %s (%s)", t->file, mn_printable(t->name, shown),
                 mn_shape_str(&t->shape, is), mn_shape_str(&want, should), x->p->info[i].name);
}

mn_status mn_arch_rotary(const mn_model *m, const char *param, int64_t *K, int64_t *R) {
  const mn_mixer *mixer = mn_model_owner(m, param);
  if (!mixer || strcmp(mixer->def->name, "attention") != 0) return mn_fail(MN_ERR_INTERNAL, "%s has no heads to be rotated", param);
  const mn_attention_config *c = mixer->config;
  *K = c->head_dim;
  *R = c->rope && c->rope_dim ? c->rope_dim : *K;
  return MN_OK;
}

/* A tensor that a file may hold again under another name must be the same twice, or the model is not what its settings say. */
static mn_status check_copy(const matching *x, int i, const mn_arch_piece *piece) {
  char name[MN_ARCH_NAME], shown[MN_PRINTABLE];
  int layer;
  for (const mn_arch_tensor *r = x->a->tensors; x->p->info[i].copy && (r->param || r->hf || r->gguf); r++) {
    if (!r->param || !mn_arch_fits(r->param, x->p->info[i].copy, &layer) || !pattern_of(x, r)) continue;
    const mn_checkpoint_tensor *t = find(x, mn_arch_filled(pattern_of(x, r), layer, name));
    if (!t) continue;
    x->known[t - mn_checkpoint_at(x->c, 0)] = true;
    if (t->bytes == piece->tensor->bytes && !memcmp(t->data, piece->tensor->data, t->bytes)) continue;
    return mn_fail(MN_ERR_FORMAT,
                   "%s: tensor '%s' should repeat '%s', which this model uses in its place, but differs from it; the settings tie the two",
                   t->file, mn_printable(t->name, shown), piece->tensor->name);
  }
  return MN_OK;
}

/* The tensors of all experts, one for each slice of the parameter. */
static mn_status match_each(const matching *x, int i, int layer, mn_arch_piece *piece) {
  const int64_t n = x->p->info[i].shape.dim[0];
  char name[MN_ARCH_NAME];
  if (!(piece->each = mn_calloc((size_t)n + 1, sizeof *piece->each))) return MN_ERR_MEMORY;
  for (int64_t e = 0; e < n; e++) {
    piece->tensor = piece->each[e] = find(x, mn_arch_filled_with(pattern_of(x, piece->row), layer, e, name));
    if (!piece->tensor) return missing(x, x->p->info[i].name, name);
    MN_TRY(check_shape(x, i, piece, 0));
    MN_TRY(mn_checkpoint_readable(piece->tensor));
    x->known[piece->tensor - mn_checkpoint_at(x->c, 0)] = true;
  }
  piece->tensor = piece->each[0];
  return MN_OK;
}

/* Rows that stand one behind the other, and columns that stand where they should, need no order: such a tensor may stay where it lies. */
static void settle(const matching *x, int i, mn_arch_piece *piece) {
  const mn_shape *s = &x->p->info[i].shape;
  if (piece->how & MN_T_ROWS) {
    const int64_t rows = s->dim[0], first = x->a->place(piece->mixer, piece->row, 0);
    int64_t r = 1;
    while (r < rows && x->a->place(piece->mixer, piece->row, r) == first + r) r++;
    if (r >= rows) piece->how = (piece->how & ~(unsigned)MN_T_ROWS) | MN_T_PART, piece->first = first;
  }
  if (piece->how & MN_T_COLUMNS) {
    const int64_t n = s->dim[1] / x->a->together(piece->mixer, piece->row);
    int64_t k = 0;
    while (k < n && x->a->place(piece->mixer, piece->row, k) == k) k++;
    if (k == n) piece->how &= ~(unsigned)MN_T_COLUMNS;
  }
}

void mn_arch_pieces_free(int n, mn_arch_piece *pieces) {
  for (int i = 0; pieces && i < n; i++) free(pieces[i].each);
  free(pieces);
}

static mn_status match_one(const matching *x, int i) {
  const char *param = x->p->info[i].name;
  char name[MN_ARCH_NAME], absent[MN_ARCH_NAME] = "";
  for (const mn_arch_tensor *r = x->a->tensors; r->param || r->hf || r->gguf; r++) {
    int layer;
    int64_t rows = 0;
    if (!r->param || !pattern_of(x, r) || !mn_arch_fits(r->param, param, &layer)) continue;
    mn_arch_piece *piece = &x->pieces[i];
    const char *pattern = pattern_of(x, r);
    const mn_checkpoint_tensor *t = find(x, !strcmp(pattern, "*") ? param : mn_arch_filled(pattern, layer, name));
    if (!t) {
      if (!*absent) snprintf(absent, sizeof absent, "%s", !strcmp(pattern, "*") ? param : name);
      continue;
    }
    *piece = (mn_arch_piece){.row = r, .how = how_of(x, r), .tensor = t, .arch = x->a, .from = x->c, .mixer = mn_model_owner(x->m, param)};
    if (strchr(pattern_of(x, r), '@')) return match_each(x, i, layer, piece);
    if (piece->how & (MN_T_PART | MN_T_ROWS)) MN_TRY(parts_of(x, r, layer, &piece->first, &rows));
    if (piece->how & MN_T_ROTARY) MN_TRY(mn_arch_rotary(x->m, x->p->info[i].name, &piece->rotary, &piece->turned));
    MN_TRY(check_shape(x, i, piece, rows));
    MN_TRY(mn_checkpoint_readable(piece->tensor));
    x->known[piece->tensor - mn_checkpoint_at(x->c, 0)] = true;
    settle(x, i, piece);
    return check_copy(x, i, piece);
  }
  if (*absent) return missing(x, param, absent);
  return mn_fail(MN_ERR_UNSUPPORTED, "%s: %s of this model has no place in a checkpoint of %s", mn_checkpoint_path(x->c), param,
                 x->a->name);
}

static bool is_left_aside(const matching *x, const char *name) {
  const size_t n = x->a->prefix ? strlen(x->a->prefix) : 0;
  int layer;
  for (const mn_arch_tensor *r = x->a->tensors; r->param || r->hf || r->gguf; r++) {
    const char *pattern = pattern_of(x, r);
    if (r->param || !pattern) continue;
    if (how_of(x, r) & MN_T_BEHIND) {
      if (mn_arch_fits(pattern, name, &layer) && layer >= x->m->config.layers) return true;
      continue;
    }
    if (mn_arch_fits(pattern, name, &layer) || (n && !strncmp(pattern, x->a->prefix, n) && mn_arch_fits(pattern + n, name, &layer)))
      return true;
  }
  return false;
}

static mn_status check_rest(const matching *x) {
  char shown[MN_PRINTABLE];
  for (int i = 0; i < mn_checkpoint_count(x->c); i++) {
    const mn_checkpoint_tensor *t = mn_checkpoint_at(x->c, i);
    if (x->known[i] || is_left_aside(x, t->name)) continue;
    return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' has no place in a model of type %s with these settings", t->file,
                   mn_printable(t->name, shown), x->a->name);
  }
  return MN_OK;
}

mn_status mn_arch_match(const mn_arch_def *a, const mn_checkpoint *c, const mn_model *m, const mn_params *p, mn_arch_piece *pieces) {
  matching x = {a, c, m, p, pieces, mn_calloc((size_t)mn_checkpoint_count(c) + 1, sizeof *x.known)};
  mn_status status = x.known ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if ((status = mn_stop_check("opening a model")) == MN_OK) status = match_one(&x, i);
  if (status == MN_OK) status = check_rest(&x);
  free(x.known);
  return status;
}
