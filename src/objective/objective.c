/* objective.c - see objective.h: reading the recipe's key, the weights of units, and the graph of model and judgement. */
#include "objective/objective.h"
#include "objective/teacher.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/nearest.h"

/* ---- the key `objective` ---- */

typedef struct common {
  const char *type;
  double weight;
} common;
static const mn_field common_fields[] = {MN_FIELD_STRING(common, type, "next_token", "which objective"),
                                         MN_FIELD_FLOAT(common, weight, 1, DBL_MIN, 1e6, "of its loss in the sum, where there are several"),
                                         MN_FIELD_END};
static const mn_field no_fields[] = {MN_FIELD_END};

static const char *name_at(int i) { return mn_objective_at(i)->name; }

static mn_status find_objective(const mn_value *map, const char *where, const mn_objective_def **out) {
  const mn_value *v = mn_value_get(map, "type");
  int i;
  if (!v) MN_TRY(mn_config_misspelt(map, "type"));
  if (!v || v->kind != MN_TEXT) return mn_config_fail(map, where, "type", "must name an objective, e.g. type: next_token");
  MN_TRY(mn_config_choose(v, "objective", v->as.text, mn_objective_count(), name_at, &i));
  *out = mn_objective_at(i);
  return MN_OK;
}

static mn_status parse_one(mn_arena *arena, const mn_value *map, const char *where, mn_objective *out) {
  MN_TRY(find_objective(map, where, &out->def));
  const mn_objective_def *d = out->def;
  common c;
  out->config = mn_arena_alloc(arena, d->config_size + 1);
  if (!out->config) return MN_ERR_MEMORY;
  const mn_config_part parts[] = {{common_fields, &c}, {d->fields ? d->fields : no_fields, out->config}};
  for (int i = 0; i < 2; i++) mn_config_defaults(parts[i].fields, parts[i].target);
  MN_TRY(mn_config_parse(arena, map, where, parts, 2));
  out->weight = c.weight;
  return d->check ? d->check(map, where, out->config) : MN_OK;
}

extern const mn_objective_def mn_objective_next_token;

static const char *judged_by(const mn_objective *o) {
  int axes;
  return o->def->target ? o->def->target(o->config, &axes) : NULL;
}

/* A batch is one: what one objective hides in it another would hide again, and judge by what the first put there. */
static mn_status check_changes(const mn_value *v, const char *where, const mn_objectives *o) {
  int first = -1;
  for (int i = 0; i < o->n; i++) {
    if (!o->list[i].def->prepare) continue;
    if (first >= 0)
      return mn_value_fail(v->as.items[i], "%s: %s (number %d) changes the batch, and so does %s (number %d): one of a list can", where,
                           o->list[i].def->name, i + 1, o->list[first].def->name, first + 1);
    first = i;
  }
  const char *replaced = first >= 0 ? judged_by(&o->list[first]) : NULL;
  for (int i = 0; replaced && i < o->n; i++) {
    const char *read = i == first ? NULL : judged_by(&o->list[i]);
    if (read && strcmp(read, replaced) == 0)
      return mn_value_fail(
          v->as.items[i],
          "%s: %s (number %d) is judged by the field %s, in which %s (number %d) puts what it hid: train for them in stages "
          "of their own, or leave one of them out",
          where, o->list[i].def->name, i + 1, read, o->list[first].def->name, first + 1);
  }
  return MN_OK;
}

mn_status mn_objectives_parse(mn_arena *arena, const mn_value *v, const char *where, mn_objectives *out) {
  *out = (mn_objectives){.n = 1, .list = {{.def = &mn_objective_next_token, .weight = 1}}};
  if (!v || v->kind == MN_NULL) return (out->list[0].config = mn_arena_alloc(arena, 1)) ? MN_OK : MN_ERR_MEMORY;
  if (v->kind == MN_MAP) return parse_one(arena, v, where, &out->list[0]);
  char shown[MN_PLACE];
  if (v->kind != MN_LIST)
    return mn_value_fail(v, "%s must be a map such as {type: next_token}, or a list of such, but is %s", where, mn_value_show(v, shown));
  if (!v->count || v->count > MN_OBJECTIVES)
    return mn_value_fail(v, "%s: a list of 1 to %d objectives is possible, and this one has %zu", where, MN_OBJECTIVES, v->count);
  out->n = (int)v->count;
  for (int i = 0; i < out->n; i++) {
    const mn_value *map;
    MN_TRY(mn_value_map_in(v, (size_t)i, "{type: next_token}", &map));
    MN_TRY(parse_one(arena, map, NULL, &out->list[i]));
  }
  return check_changes(v, where, out);
}

const char *mn_objective_title(const mn_objectives *o, int k, char buf[64]) {
  int before = 0;
  for (int i = 0; i < k; i++) before += o->list[i].def == o->list[k].def;
  if (before) snprintf(buf, 64, "%s%d", o->list[k].def->name, before + 1);
  else snprintf(buf, 64, "%s", o->list[k].def->name);
  return buf;
}

bool mn_objectives_usual(const mn_objectives *o) {
  return o->n == 1 && o->list[0].def == &mn_objective_next_token && o->list[0].weight == 1;
}

const mn_value *mn_objectives_to_value(mn_arena *arena, const mn_objectives *o) {
  const mn_value *items[MN_OBJECTIVES];
  for (int i = 0; i < o->n; i++) {
    const mn_objective *x = &o->list[i];
    common c = {x->def->name, x->weight};
    const mn_config_part parts[] = {{common_fields, &c}, {x->def->fields ? x->def->fields : no_fields, x->config}};
    if (!(items[i] = mn_config_to_value(arena, parts, 2))) return NULL;
  }
  return o->n == 1 ? items[0] : mn_value_list(arena, (size_t)o->n, items);
}

/* ---- do they fit together? ---- */

static void list_fields(const mn_batch *batch, mn_text *out) {
  char shape[96];
  for (int i = 0; i < batch->n; i++)
    mn_text_addf(out, "%s%s %s %s", i ? ", " : "", batch->field[i].name, mn_dtype_name(batch->field[i].dtype),
                 mn_shape_str(&batch->field[i].shape, shape));
}

static mn_status field_missing(const mn_value *v, const char *who, const mn_port *p, const mn_source *s, const mn_batch *batch) {
  mn_text has = {0};
  const char *names[MN_SOURCE_FIELDS];
  for (int i = 0; i < batch->n; i++) names[i] = batch->field[i].name;
  list_fields(batch, &has);
  const char *near = mn_nearest(p->name, names, batch->n);
  mn_status status = mn_value_fail(v, "%s needs the field %s (%s [%s]: %s), and data.type %s gives %s%s%s%s", who, p->name,
                                   mn_dtype_name(p->dtype), p->axes, p->help ? p->help : "", s->def->name, has.data ? has.data : "nothing",
                                   near ? "; the nearest is '" : "", near ? near : "", near ? "'" : "");
  mn_text_free(&has);
  return status;
}

/* The field fits the port's type, number of axes, and those sizes that the model decides. */
static mn_status check_field(const mn_value *v, const char *who, const mn_port *p, const mn_shape *want, const mn_source *s,
                             const mn_batch *batch, int i) {
  const mn_source_field *f = &batch->field[i];
  bool ok = f->dtype == p->dtype && f->shape.ndim == (int)strlen(p->axes);
  for (int k = 0; ok && want && k < f->shape.ndim; k++) ok = !want->dim[k] || want->dim[k] == f->shape.dim[k];
  if (ok) return MN_OK;
  char a[96], b[96];
  return mn_value_fail(v, "%s takes %s as %s [%s]%s%s, but data.type %s gives %s %s", who, p->name, mn_dtype_name(p->dtype), p->axes,
                       want ? " = " : "", want ? mn_shape_str(want, a) : "", s->def->name, mn_dtype_name(f->dtype),
                       mn_shape_str(&f->shape, b));
}

static mn_status output_missing(const mn_value *v, const mn_objective *o, const mn_port *p, const mn_model *m) {
  mn_text has = {0};
  for (const mn_port *q = m->outputs; q && q->name; q++) mn_text_addf(&has, "%s%s [%s]", has.len ? ", " : "", q->name, q->axes);
  mn_status status = mn_value_fail(v, "objective %s needs the model's output %s [%s] (%s), and a model of type %s gives %s", o->def->name,
                                   p->name, p->axes, p->help ? p->help : "", m->def->name, has.data ? has.data : "nothing");
  mn_text_free(&has);
  return status;
}

static mn_sizes sizes_of(const mn_source *s, const mn_batch *batch) {
  mn_sizes sizes = {.B = batch->B, .T = batch->T, .S = s ? s->source_len : 0};
  int i = mn_batch_find(batch, "source");
  if (i >= 0 && batch->field[i].shape.ndim > 1) sizes.S = batch->field[i].shape.dim[1];
  return sizes;
}

/* Ids of the data within the vocabulary of each input, and a source within the room that a stream has for it. */
static mn_status match_ids(const mn_value *v, const mn_model *m, const mn_source *s, const mn_batch *batch) {
  for (const mn_port *p = m->inputs; p->name; p++) {
    const bool source = !strcmp(p->name, "source"), condition = !strcmp(p->name, "condition");
    const int64_t ids = !strcmp(p->name, "masks") ? 0 : mn_model_ids(m, p);
    const int64_t has = condition ? s->conditions : source && s->source_vocab_size ? s->source_vocab_size : s->vocab_size;
    if (ids && has > ids && mn_batch_find(batch, p->name) >= 0)
      return mn_value_fail(v, "%s of data.type %s holds ids below %lld, and a model of type %s has %s of %lld for it: raise its %s",
                           !source && !condition && s->vocab_field ? s->vocab_field : p->name, s->def->name, (long long)has, m->def->name,
                           condition ? "a table" : "a vocabulary", (long long)ids,
                           condition ? "condition_classes"
                           : source  ? "source_vocab_size, or leave that out"
                                     : "vocab_size");
  }
  const int64_t room = mn_model_most(m, 'S');
  if (s->source_len <= room) return MN_OK;
  return mn_value_fail(v, "data.source_len is %lld, and a stream of this model of type %s has room for a source of %lld: raise max_source",
                       (long long)s->source_len, m->def->name, (long long)room);
}

static bool is_named(const mn_port *ports, const char *name) {
  for (; ports->name; ports++)
    if (!strcmp(ports->name, name)) return true;
  return false;
}

/* Does an objective judge logits by the field? */
static bool judges_logits_by(const mn_objectives *o, const char *field) {
  for (int k = 0; k < o->n; k++) {
    const mn_port *outputs, *data;
    o->list[k].def->needs(o->list[k].config, &outputs, &data);
    if (is_named(outputs, "logits") && is_named(data, field)) return true;
  }
  return false;
}

/* A label that the model has no logit for would cost nothing. */
static mn_status match_labels(const mn_objectives *o, const mn_value *v, const mn_model *m, const mn_source *s, mn_sizes sizes) {
  const mn_port *p = mn_model_output(m, "logits");
  if (!p) return MN_OK;
  mn_shape shape = mn_model_shape(m, p, sizes);
  const int64_t logits = shape.ndim ? shape.dim[shape.ndim - 1] : 0;
  const int64_t targets = judges_logits_by(o, "target") ? s->targets : 0, classes = s->classes > targets ? s->classes : targets;
  if (v && logits > s->classes && s->classes > 0 && judges_logits_by(o, "label"))
    mn_log_write(MN_LOG_WARN, "the model tells %lld classes apart, and the data has %lld: nothing will be learned of the others",
                 (long long)logits, (long long)s->classes);
  if (!logits || logits >= classes) return MN_OK;
  return mn_value_fail(v, "the data has %lld classes, and the model's logits only %lld; raise the model's number of classes",
                       (long long)classes, (long long)logits);
}

/* Rows in an order drawn anew are no pairs, whatever stood side by side in a file. */
static mn_status match_pairs(const mn_value *v, const mn_objective *o, const mn_source *s) {
  if (!o->def->pairs || s->rows == 2) return MN_OK;
  return mn_value_fail(v,
                       "objective %s needs rows that belong together by twos, and data.type %s gives each alone: data: {type: pairs, "
                       "layout: twins} gives pairs",
                       o->def->name, s->def->name);
}

mn_status mn_objectives_match(const mn_objectives *o, const mn_value *v, const mn_model *m, const mn_source *s, const mn_batch *batch) {
  mn_sizes sizes = sizes_of(s, batch);
  char who[96];
  snprintf(who, sizeof who, "a model of type %s", m->def->name);
  for (const mn_port *p = m->inputs; p->name; p++) {
    int i = mn_batch_find(batch, p->name);
    mn_shape want = mn_model_shape(m, p, sizes);
    if (i < 0 && (!p->optional || (v && p->optional == MN_PORT_TAUGHT))) return field_missing(v, who, p, s, batch);
    if (i >= 0) MN_TRY(check_field(v, who, p, &want, s, batch, i));
  }
  for (int k = 0; k < o->n; k++) {
    const mn_port *outputs, *data;
    o->list[k].def->needs(o->list[k].config, &outputs, &data);
    snprintf(who, sizeof who, "objective %s", o->list[k].def->name);
    MN_TRY(match_pairs(v, &o->list[k], s));
    for (const mn_port *p = outputs; p->name; p++)
      if (!p->optional && strncmp(p->name, "teacher.", 8) && !mn_model_output(m, p->name)) return output_missing(v, &o->list[k], p, m);
    for (const mn_port *p = data; p->name; p++) {
      int i = mn_batch_find(batch, p->name);
      if (i < 0 && !p->optional) return field_missing(v, who, p, s, batch);
      if (i >= 0 && !p->optional) MN_TRY(check_field(v, who, p, NULL, s, batch, i));
    }
  }
  MN_TRY(match_ids(v, m, s, batch));
  return match_labels(o, v, m, s, sizes);
}

/* ---- units ---- */

static const mn_source_field *target_of(const mn_objective *o, const mn_batch *batch, int *axes, const int32_t **values) {
  const char *name = o->def->target ? o->def->target(o->config, axes) : NULL;
  int i = name ? mn_batch_find(batch, name) : -1;
  *values = i >= 0 && batch->field[i].dtype == MN_I32 ? batch->data[i] : NULL;
  return i < 0 ? NULL : &batch->field[i];
}

int64_t mn_objective_units(const mn_objective *o, const mn_batch *batch) {
  int axes = 1;
  const int32_t *values;
  const mn_source_field *f = target_of(o, batch, &axes, &values);
  int64_t n = batch->B;
  for (int k = 1; f && k < axes && k < f->shape.ndim; k++) n *= f->shape.dim[k];
  return n;
}

/* Of row b, by masks; a length says that one place at least is there. */
static bool has_a_place(const mn_batch *batch, int64_t b) {
  const int i = mn_batch_find(batch, "masks");
  const mn_source_field *f = i < 0 ? NULL : &batch->field[i];
  if (!f || f->dtype != MN_I32 || f->shape.ndim != 2) return true;
  const int32_t *masks = mn_batch_row(batch, i, b), *length = mn_batch_get(batch, "length");
  for (int64_t t = 0, n = length && length[b] < f->shape.dim[1] ? length[b] : f->shape.dim[1]; t < n; t++)
    if (masks[t] > 0) return true;
  return false;
}

double mn_objective_weights(const mn_objective *o, const mn_batch *batch, float *weight) {
  int axes = 1;
  const int32_t *values;
  const mn_source_field *f = target_of(o, batch, &axes, &values);
  int64_t units = mn_objective_units(o, batch), per_row = units / batch->B, stride = f ? mn_shape_count(&f->shape) / units : 1;
  double sum = 0;
  const bool alone = o->def->pairs && batch->present < 4; /* a pair that nothing stands against */
  for (int64_t i = 0; i < units; i++) {
    const int64_t row = i / per_row;
    bool counts = !alone && row < batch->rows && (!values || values[i * stride] >= 0);
    if (!values && o->def->of_places) counts = counts && has_a_place(batch, row) && (!o->def->pairs || has_a_place(batch, row ^ 1));
    double w = !counts ? 0 : values && o->def->weigh ? o->def->weigh(o->config, values + i * stride) : 1;
    weight[i] = (float)w;
    sum += w;
  }
  return sum;
}

mn_status mn_objective_nothing(const mn_objective *o, const char *where) {
  int axes;
  const char *name = o->def->target ? o->def->target(o->config, &axes) : NULL;
  if (o->def->pairs)
    return mn_fail(MN_ERR_CONFIG, "nothing was asked: %s hold one pair, and objective %s tells it apart from others: give more pairs",
                   where, o->def->name);
  if (!name) return mn_fail(MN_ERR_CONFIG, "nothing was asked: %s hold no row for objective %s", where, o->def->name);
  if (o->def->prepare)
    return mn_fail(MN_ERR_CONFIG, "nothing was asked: in %s objective %s hid no token; raise objective.fraction, or give more rows", where,
                   o->def->name);
  return mn_fail(MN_ERR_CONFIG, "nothing was asked: in %s no value of the field %s counts for objective %s (negative ones do not%s)", where,
                 name, o->def->name, o->def->weigh ? ", nor those of weight 0" : "");
}

mn_status mn_objectives_prepare(const mn_objectives *o, const mn_model *m, uint64_t seed, int split, int64_t step, mn_batch *batch) {
  for (int k = 0; k < o->n; k++) {
    if (!o->list[k].def->prepare) continue;
    uint64_t key = mn_splitmix64(mn_random_key(seed, o->list[k].def->name) ^ mn_splitmix64((uint64_t)step * 4 + (uint64_t)split));
    MN_TRY(o->list[k].def->prepare(o->list[k].config, m, key, batch));
  }
  return MN_OK;
}

/* ---- the graph ---- */

static bool wanted(const mn_objectives *o, const mn_model *m, const char *field) {
  if (mn_model_input(m, field)) return true;
  for (int k = 0; k < o->n; k++) {
    const mn_port *outputs, *data;
    o->list[k].def->needs(o->list[k].config, &outputs, &data);
    for (; data->name; data++)
      if (!strcmp(data->name, field)) return true;
  }
  return false;
}

static mn_tensor *leaf(mn_graph *g, const mn_source_field *f, mn_dtype exact) {
  return mn_input(g, f->name, f->dtype == MN_F32 ? exact : f->dtype, f->shape);
}

/* Weighted by 1 a loss is itself: the graph of one objective is the objective's. */
static mn_tensor *total_loss(mn_scope *s, const mn_objectives *o, const mn_judged *j) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *total = NULL;
  for (int k = 0; k < o->n; k++) {
    mn_tensor *loss = j->verdict[k].loss;
    if (o->list[k].weight != 1) loss = mn_mul_scalar(g, loss, o->list[k].weight);
    total = total ? mn_add(g, total, loss) : loss;
  }
  return total;
}

/* What an objective is given of the teacher: its outputs beside the model's. It reads what the model reads, as streams that go on
 * where the model's do. */
static mn_status build_teacher(mn_scope *s, const mn_model *teacher, mn_judged *j, int k, mn_model_io *outputs) {
  mn_graph *g = mn_scope_graph(s);
  mn_model_io in = {0}, said;
  for (int i = 0; i < j->data.n; i++)
    if (mn_model_input(teacher, j->data.name[i])) mn_io_put(&in, j->data.name[i], j->data.tensor[i]);
  j->teacher[k] = mn_scope_beside(s, "teacher");
  mn_model_build(j->teacher[k], teacher, &in, &said);
  MN_TRY(mn_context(mn_graph_status(g), "objective.teacher"));
  for (int i = 0; i < said.n; i++) mn_io_put(outputs, mn_arena_format(g->arena, "teacher.%s", said.name[i]), said.tensor[i]);
  return MN_OK;
}

const char *mn_objective_weight_name(int k, char buf[MN_OBJECTIVE_WEIGHT]) {
  snprintf(buf, MN_OBJECTIVE_WEIGHT, k ? "weight%d" : "weight", k);
  return buf;
}

mn_status mn_judge_in(mn_scope *s, const mn_objectives *o, const mn_teachers *teachers, const mn_model *m, const mn_batch *batch,
                      bool measure, bool predict, mn_judged *out) {
  *out = (mn_judged){.scope = s};
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_model_io in = {0}, outputs = {0};
  for (int i = 0; i < batch->n; i++) {
    const mn_source_field *f = &batch->field[i];
    if (!strcmp(f->name, "reset") || !wanted(o, m, f->name)) continue;
    mn_tensor *t = leaf(g, f, exact);
    mn_io_put(&out->data, f->name, t);
    if (mn_model_input(m, f->name)) mn_io_put(&in, f->name, t);
  }
  char name[MN_OBJECTIVE_WEIGHT];
  for (int k = 0; k < o->n; k++) {
    mn_shape units = MN_SHAPE(mn_objective_units(&o->list[k], batch));
    out->weight[k] = measure ? mn_full(g, exact, units, 1) : mn_input(g, mn_objective_weight_name(k, name), exact, units);
  }
  mn_model_build(s, m, &in, &outputs);
  MN_TRY(mn_graph_status(g));
  for (int k = 0; k < o->n; k++) {
    mn_model_io with = outputs;
    if (teachers && teachers->model[k]) MN_TRY(build_teacher(s, teachers->model[k], out, k, &with));
    mn_judge judge = {&with, &out->data, out->weight[k], measure, predict, m};
    o->list[k].def->build(s, o->list[k].config, &judge, &out->verdict[k]);
    MN_TRY(mn_graph_status(g));
  }
  out->loss = total_loss(s, o, out);
  return mn_graph_status(g);
}

/* ---- for objectives ---- */

mn_tensor *mn_weighted_sum(mn_graph *g, mn_tensor *x, mn_tensor *weight) {
  return mn_reshape(g, mn_sum(g, mn_mul(g, x, weight), MN_ALL_AXES), (mn_shape){0});
}

mn_tensor *mn_log_softmax(mn_graph *g, mn_tensor *x) {
  unsigned last = mn_last_axis(x);
  x = mn_sub(g, x, mn_stop_gradient(g, mn_max(g, x, last)));
  return mn_sub(g, x, mn_log(g, mn_sum(g, mn_exp(g, x), last)));
}

mn_tensor *mn_pick(mn_graph *g, mn_tensor *x, mn_tensor *index) {
  int64_t N = mn_dim(x, 0);
  return mn_reshape(g, mn_take(g, x, mn_reshape(g, index, MN_SHAPE(N, 1)), 1), MN_SHAPE(N));
}

mn_tensor *mn_places_there(mn_scope *s, const mn_judge *judge, int64_t B, int64_t T) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *length = mn_io_get(judge->data, "length"), *masks = mn_io_get(judge->data, "masks"), *there = NULL;
  if (masks && (masks->shape.ndim != 2 || mn_dim(masks, 1) != T)) masks = NULL; /* of other places */
  if (length) there = mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(B, T), 1), mn_reshape(g, length, MN_SHAPE(B, 1)));
  if (masks) masks = mn_lt(g, mn_scalar(g, MN_I32, 0), masks);
  if (there && masks) there = mn_and(g, there, masks);
  else if (masks) there = masks;
  return there ? mn_cast(g, there, mn_scope_exact(s)) : NULL;
}

mn_tensor *mn_row_mean(mn_graph *g, mn_tensor *x, mn_tensor *places) {
  const int64_t B = mn_dim(x, 0), n = mn_dim(x, 1);
  if (!places) return mn_reshape(g, mn_mean(g, x, MN_AXIS(1)), MN_SHAPE(B));
  const int64_t T = mn_dim(places, 1);
  mn_tensor *counts = mn_mul_scalar(g, mn_sum(g, places, MN_AXIS(1)), (double)(n / T)), *at = mn_reshape(g, places, MN_SHAPE(B, T, 1));
  mn_tensor *sum = mn_sum(g, mn_mul(g, mn_reshape(g, x, MN_SHAPE(B, T, n / T)), at), MN_AXIS(1) | MN_AXIS(2));
  return mn_div(g, mn_reshape(g, sum, MN_SHAPE(B)), mn_reshape(g, mn_maximum(g, counts, mn_scalar(g, mn_type(x), 1)), MN_SHAPE(B)));
}

static mn_tensor *output(const mn_model_io *outputs, const char *prefix, const char *name) {
  char full[64];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  return mn_io_get(outputs, full);
}

mn_tensor *mn_judge_logits(mn_scope *s, const mn_model_io *outputs, const char *prefix) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *logits = output(outputs, prefix, "logits"), *h = output(outputs, prefix, "hidden"), *w = output(outputs, prefix, "head");
  if (!logits && h && w) logits = mn_logits(s, h, w);
  if (!logits) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective: the model gives neither %slogits nor %shidden and %shead%s", prefix, prefix, prefix,
                   *prefix ? "; name a trained model that does (teacher: DIR)" : "");
    return NULL;
  }
  int64_t C = mn_dim(logits, -1), N = mn_shape_count(&logits->shape) / C;
  return mn_cast(g, mn_reshape(g, logits, MN_SHAPE(N, C)), mn_scope_exact(s));
}
