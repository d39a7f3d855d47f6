/* test_interrupted_build.c - whoever asks to stop may do so while a graph is built, and from that node on builders give NULL: every
 * mixer and every kind of model goes on to its end without looking behind one, wherever the fault falls. */
#include "format/json.h"
#include "format/yaml.h"
#include "model/model.h"
#include "nn/mixer.h"
#include "plainest_mixer.h"
#include "test.h"

enum { B = 2, T = 40, D = 64, LOOK = 1024 }; /* more tokens than fit one chunk; a graph asks whether to stop before node LOOK - 1 */

static atomic_int stop = 1;

/* Builds the mixer in a graph that is told to stop after `nodes` nodes of its own; true when it was told. */
static bool interrupted(const mn_mixer *mixer, bool carried, bool training, int nodes) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(B, T, D));
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = carried, .training = training}, B);
  mn_stop_watch(NULL);
  while (g->n_nodes < LOOK - 1 - nodes) mn_identity(g, x);
  mn_stop_watch(&stop);
  mn_tensor *y = mn_mixer_apply(s, mixer, x);
  mn_stop_watch(NULL);
  const mn_status status = mn_graph_status(g);
  CHECK(status == MN_OK ? y != NULL : status == MN_ERR_CANCELLED && !y, "%s, told to stop after %d nodes: %s", mixer->def->name, nodes,
        mn_message());
  mn_graph_free(g);
  return status != MN_OK;
}

static void test_no_mixer_looks_behind_a_fault(void) {
  for (int i = 0; i < mn_mixer_count(); i++) {
    mn_arena *arena = mn_arena_new();
    mn_mixer mixer;
    char json[MN_PLAINEST];
    const mn_value *v = NULL;
    mn_plainest_mixer(json, mn_mixer_at(i)->name);
    CHECK_OK(mn_json_parse(arena, "test", json, strlen(json), &v));
    CHECK_OK(mn_mixer_parse(arena, v, "mixer", D, &mixer));
    for (int how = 0; how < 3; how++) {
      int nodes = 0;
      while (nodes < LOOK - 4 && interrupted(&mixer, how == 1, how == 2, nodes)) nodes++;
      CHECK(nodes > 0, "%s: nothing was interrupted", mixer.def->name);
    }
    mn_arena_free(arena);
  }
}

/* ---- models ---- */
#define BLOCK "block: {mixer: {type: attention, heads: 2}, hidden: 8}"
#define SEEN  "block: {mixer: {type: attention, heads: 2, causal: false, rope: false}, hidden: 8}"
static const char *const models[] = {
    "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, bias: true}, hidden: 8}, "
    "linear: [{match: '*.q_proj', type: lora, rank: 2, dropout: 0.1}, {match: '*.k_proj', type: low_rank, rank: 2}, "
    "{match: '*.v_proj', type: masked}, {match: '*.o_proj', type: grouped, groups: 2}]}",
    "{type: hmt, segment: 4, sensory: 2, base: {vocab_size: 9, d_model: 8, layers: 1, " BLOCK "}}",
    "{type: hmt, segment: 4, sensory: 2, query: head, base: {vocab_size: 9, d_model: 8, layers: 1, " BLOCK "}}",
    "{type: lmuformer, channels: 3, num_classes: 4}",
    "{type: lmuformer, channels: 3, num_classes: 4, spiking: true}",
    "{type: classifier, vocab_size: 9, num_classes: 3, d_model: 8, layers: 1, " SEEN "}",
    "{type: encoder, vocab_size: 9, d_model: 8, layers: 1, " SEEN "}",
    "{type: vision, height: 8, width: 8, patch: 4, num_classes: 3, d_model: 8, layers: 1, positions: learned, " SEEN "}",
    "{type: forecaster, context: 8, horizon: 4, channels: 2, patch: 4, d_model: 8, layers: 1, positions: learned, " SEEN "}",
    "{type: encoder_decoder, vocab_size: 9, d_model: 8, layers: 1, encoder: {layers: 1, " SEEN "}, " BLOCK "}",
};

static bool interrupted_model(const mn_model *m, const char *yaml, bool carried, bool training, int nodes) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = carried, .training = training}, B);
  mn_model_io in, out;
  mn_model_inputs(s, m, (mn_sizes){B, T, T}, MN_INPUTS_NEEDED, &in);
  mn_tensor *x = mn_input(g, "beside", MN_F32, MN_SHAPE(1));
  mn_stop_watch(NULL);
  while (g->n_nodes < LOOK - 1 - nodes) mn_identity(g, x);
  mn_stop_watch(&stop);
  mn_model_build(s, m, &in, &out);
  mn_stop_watch(NULL);
  const mn_status status = mn_graph_status(g);
  CHECK(status == MN_OK || status == MN_ERR_CANCELLED, "%s, told to stop after %d nodes: %s", yaml, nodes, mn_message());
  mn_graph_free(g);
  return status != MN_OK;
}

static void test_no_model_looks_behind_a_fault(void) {
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_model *m = NULL;
    CHECK_OK(mn_yaml_parse(arena, "test", models[i], strlen(models[i]), &v));
    CHECK_OK(mn_model_parse(v, NULL, 0, &m));
    for (int how = 0; m && how < 3; how++) {
      if (how == 1 && mn_model_check_stream(m) != MN_OK) continue;
      int nodes = 0;
      while (nodes < LOOK - 16 && interrupted_model(m, models[i], how == 1, how == 2, nodes)) nodes++;
      CHECK(nodes > 0, "%s: nothing was interrupted", models[i]);
    }
    mn_model_free(m);
    mn_arena_free(arena);
  }
}

int main(void) {
  RUN(test_no_mixer_looks_behind_a_fault);
  RUN(test_no_model_looks_behind_a_fault);
  return test_end();
}
