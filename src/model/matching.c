/* matching.c - students beside the mixers that they are to replace: a trained decoder, the base, runs as it is, and in each block that is
 * chosen another mixer reads what the block's own reads, with the parameters of that block where they have one name (W_q, W_k, W_v) and
 * its own beside them. No student's output goes on: each layer is matched alone, with the base's input (teacher forcing; Nguyen et al.
 * 2025, arXiv 2507.09025, first stage). For layer l of those chosen, with x_l what its mixer reads:
 *     Y_l = heads of the base's mixer (x_l)     Z_l = heads of the student (x_l)          [B,T,H,K], before the output projection
 *     match_error[.., l] = mean (Z_l - Y_l)^2     match_size[.., l] = mean Y_l^2           over the heads of a token
 * With `of: output` the two are compared behind the output projection. No gradient reaches the base but through parameters that the
 * student shares with it, which a training freezes. */
#include "memory/attention.h"
#include "model/model.h"

typedef struct matching_config {
  const mn_value *base, *students; /* while parsing */
  int of;
  int n;                /* how many blocks have a student      */
  const mn_mixer **own; /* [layers of the base]: NULL: it has none */
} matching_config;
enum { HEADS, OUTPUT };
static const char *const ofs[] = {"heads", "output", NULL};
#define S matching_config
static const mn_field fields[] = {
    MN_FIELD_VALUE(S, base, "the trained decoder: {d_model: 64, layers: 2, block: {...}}"),
    MN_FIELD_VALUE(S, students, "what its mixers are matched by: a list such as {layers: [0, 1], mixer: {type: lizard, heads: 4}}"),
    MN_FIELD_ENUM(S, of, ofs, HEADS, "what is compared: the heads before the output projection, or what comes out of it"), MN_FIELD_END};
#undef S

typedef struct student_keys {
  mn_ints layers;
  const mn_value *mixer;
} student_keys;
static const mn_field student_fields[] = {
    MN_FIELD_INTS(student_keys, layers, 0, 4095, "the base's blocks, from 0; none: all"),
    MN_FIELD_VALUE(student_keys, mixer, "the mixer that reads beside theirs: {type: lizard, heads: 4}"), MN_FIELD_END};

static mn_status parse_student(mn_model *m, const mn_value *map) {
  matching_config *c = m->own;
  const int layers = m->base->stack.n;
  student_keys k = {0};
  MN_TRY(mn_config_read(m->arena, map, NULL, student_fields, &k));
  if (!k.mixer || k.mixer->kind != MN_MAP) return mn_config_fail(map, NULL, "mixer", "must be a map such as {type: lizard}");
  mn_mixer *mixer = mn_arena_alloc(m->arena, sizeof *mixer);
  if (!mixer) return MN_ERR_MEMORY;
  MN_TRY(mn_mixer_parse(m->arena, k.mixer, NULL, m->config.d_model, mixer));
  for (int i = 0, n = k.layers.count ? k.layers.count : layers; i < n; i++) {
    const int64_t l = k.layers.count ? k.layers.items[i] : i;
    if (l >= layers) return mn_config_fail(map, NULL, "layers", "has %lld, and the base's blocks are 0 to %d", (long long)l, layers - 1);
    if (c->own[l]) return mn_config_fail(map, NULL, "layers", "has %lld, which has a student already", (long long)l);
    c->own[l] = mixer, c->n++;
  }
  return MN_OK;
}

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  matching_config *c = m->own;
  MN_TRY(mn_model_parse_base(m, map, where, c->base));
  if (m->base->linear.n)
    return mn_config_fail(map, where, "base",
                          "has linear policies, which a student's projections would not have; merge them first "
                          "(`mneme adapt merge`)");
  c->own = mn_arena_alloc(m->arena, (size_t)m->base->stack.n * sizeof *c->own);
  if (!c->own) return MN_ERR_MEMORY;
  for (int i = 0; i < m->base->stack.n; i++) c->own[i] = NULL;
  c->base = NULL;
  if (!c->students || c->students->kind != MN_LIST || !c->students->count)
    return mn_config_fail(map, where, "students", "must be a list such as [{layers: [0, 1], mixer: {type: lizard, heads: 4}}]");
  for (size_t i = 0; i < c->students->count; i++) {
    const mn_value *student;
    MN_TRY(mn_value_map_in(c->students, i, "{layers: [0], mixer: {type: lizard}}", &student));
    MN_TRY(parse_student(m, student));
  }
  c->students = NULL;
  return MN_OK;
}

/* One entry of the list for each mixer that was parsed, in the order of the blocks. */
static mn_status spell(mn_arena *arena, const mn_model *m, void *own) {
  matching_config *o = own;
  const matching_config *c = m->own;
  const int layers = m->base->stack.n;
  const mn_value **list = mn_arena_alloc(arena, (size_t)layers * sizeof *list);
  int64_t *at = mn_arena_alloc(arena, (size_t)layers * sizeof *at);
  size_t n = 0;
  if (!list || !at) return MN_ERR_MEMORY;
  for (int i = 0; i < layers; i++) {
    int k = 0;
    for (int j = 0; j < i && c->own[i]; j++) k += c->own[j] == c->own[i];
    if (!c->own[i] || k) continue; /* none, or said already */
    for (int j = i; j < layers; j++)
      if (c->own[j] == c->own[i]) at[k++] = j;
    student_keys keys = {{at, k}, mn_mixer_to_value(arena, c->own[i])};
    const mn_config_part part = {student_fields, &keys};
    if (!keys.mixer || !(list[n++] = mn_config_to_value(arena, &part, 1))) return MN_ERR_MEMORY;
  }
  o->base = mn_model_to_value(arena, m->base);
  o->students = mn_value_list(arena, n, list);
  return o->base && o->students ? MN_OK : MN_ERR_MEMORY;
}

/* mean over the axes behind B and T: [B,T,1], exact type */
static mn_tensor *mean_square(mn_scope *s, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1);
  x = mn_reshape(g, mn_cast(g, x, mn_scope_exact(s)), MN_SHAPE(B, T, mn_shape_count(&x->shape) / (B * T)));
  return mn_scope_masked(s, mn_mean(g, mn_square(g, x), MN_AXIS(2)), 0);
}

/* What the student of block l says of x beside what the base said: [B,T,1] each. */
static void match(mn_scope *s, const mn_model *m, int l, mn_tensor **error, mn_tensor **size) {
  const matching_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_stop_gradient(g, mn_shared(s, MN_MIXER_INPUT));
  mn_tensor *heads = mn_shared(s, MN_ATTENTION_HEADS), *y = c->of == HEADS ? heads : mn_shared(s, MN_MIXER_OUTPUT);
  const char *params = mn_arena_format(g->arena, "%sbase.layers.%d.mixer", mn_scope_path(s), l);
  mn_scope *in = mn_scope_call(s, mn_arena_format(g->arena, "students.%d", l), (mn_call_options){.params = params});
  mn_tensor *z = mn_mixer_apply(in, c->own[l], x);
  mn_scope_advance(in, mn_dim(x, 1));
  if (c->of == HEADS) {
    z = mn_shared(s, MN_ATTENTION_HEADS);
    const char *who = !heads ? m->base->stack.blocks[l].mixer.def->name : z == heads ? c->own[l]->def->name : NULL;
    if (who) {
      mn_graph_fault(g, MN_ERR_CONFIG, "students: the mixer %s of layer %d does not show its heads; set of: output", who, l);
      return;
    }
  }
  if (!y || !z || !mn_shape_equal(&y->shape, &z->shape)) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_CONFIG, "students: heads of layer %d are %s, and its student's %s: give it the same heads and head_dim", l,
                   y ? mn_shape_str(&y->shape, a) : "none", z ? mn_shape_str(&z->shape, b) : "none");
    return;
  }
  y = mn_stop_gradient(g, mn_cast(g, y, mn_scope_exact(s)));
  *error = mean_square(s, mn_sub(g, mn_cast(g, z, mn_scope_exact(s)), y));
  *size = mean_square(s, y);
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const matching_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_scope_set_length(s, mn_io_get(in, "length"));
  mn_scope *base = mn_scope_in(s, "base");
  mn_tensor *x = mn_model_embed(base, m->base, mn_io_get(in, "tokens"));
  mn_tensor **error = mn_arena_alloc(g->arena, (size_t)c->n * sizeof *error),
            **size = mn_arena_alloc(g->arena, (size_t)c->n * sizeof *size);
  if (!error || !size) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  for (int l = 0, n = 0; l < m->base->stack.n; l++) {
    x = mn_block_apply(mn_scope_in(base, "layers.%d", l), &m->base->stack.blocks[l], x, NULL);
    if (!c->own[l]) continue;
    error[n] = size[n] = NULL;
    match(s, m, l, &error[n], &size[n]);
    if (!error[n]) return;
    n++;
  }
  mn_scope_advance(s, mn_dim(x, 1));
  mn_io_put(out, "match_error", mn_concat(g, c->n, error, 2));
  mn_io_put(out, "match_size", mn_concat(g, c->n, size, 2));
  mn_io_put(out, "hidden", mn_decoder_norm(base, m->base, x));
  mn_io_put(out, "head", mn_model_head(base, m->base));
}

static int64_t size(const mn_model *m, char axis) {
  const matching_config *c = m->own;
  return axis == 'L' ? c->n : axis == 'D' ? m->config.d_model : axis == 'V' ? m->config.vocab_size : 0;
}

static const char *not_causal(const mn_model *m) {
  const matching_config *c = m->own;
  const char *why = NULL;
  for (int i = 0; i < m->base->stack.n && !why; i++)
    why = c->own[i] && c->own[i]->def->not_causal ? c->own[i]->def->not_causal(c->own[i]->config) : NULL;
  return why;
}

static const mn_port inputs[] = {
    {"tokens", MN_I32, "BT", false, "token ids"}, {"length", MN_I32, "B", true, "tokens of each row that are there; left out: all"}, {0}};
static const mn_port outputs[] = {
    {"match_error", MN_F32, "BTL", false, "of each layer that has a student: mean square of what it says less what the base's mixer says"},
    {"match_size", MN_F32, "BTL", false, "mean square of what the base's mixer says"},
    {"hidden", MN_F32, "BTD", false, "of the base, after its last norm"},
    {"head", MN_F32, "VD", false, "the base's projection to the vocabulary"},
    {0}};

const mn_model_def mn_model_matching = {
    .name = "matching",
    .summary = "a trained decoder, and beside mixers of its blocks others that learn to say the same",
    .paper = "Nguyen et al. 2025, arXiv 2507.09025",
    .trunk = MN_TRUNK_NONE,
    .config_size = sizeof(matching_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .check = check,
    .spell = spell,
    .build = build,
    .not_causal = not_causal,
};
