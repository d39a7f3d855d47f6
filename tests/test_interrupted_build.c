/* test_interrupted_build.c - whoever asks to stop may do so while a graph is built, and from that node on builders give NULL: every
 * mixer goes on to its end without looking behind one, wherever the fault falls. */
#include "format/json.h"
#include "nn/mixer.h"
#include "test.h"

enum { B = 2, T = 6, D = 64, LOOK = 1024 }; /* a graph asks whether to stop before node LOOK - 1 */

static volatile sig_atomic_t stop = 1;

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
    char json[128];
    const mn_value *v = NULL;
    snprintf(json, sizeof json, "{\"type\": \"%s\"}", mn_mixer_at(i)->name);
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

int main(void) {
  RUN(test_no_mixer_looks_behind_a_fault);
  return test_end();
}
