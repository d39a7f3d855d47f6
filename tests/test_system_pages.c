/* What must be true of the documents: the list of every key is what the tables say, and the page of a system names each of its
 * keys, and each tensor that `mneme apply` takes and gives, so that none can be added or renamed without them. */
#include <ctype.h>

#include "base/file.h"
#include "format/json.h"
#include "format/yaml.h"
#include "small_mixers.h"
#include "test.h"
#include "train/recipe.h"

static char *read_page(const char *path) {
  char full[600];
  char *text = NULL;
  size_t n = 0;
  snprintf(full, sizeof full, "%s/docs/%s", MN_TEST_SOURCE_DIR, path);
  CHECK_OK(mn_file_read(full, SIZE_MAX, &text, &n));
  return text;
}

static void test_every_key_is_listed(void) {
  char *page = read_page("recipes.md");
  mn_text keys = {0};
  mn_recipe_help(MN_HELP_MARKDOWN, &keys);
  const char *from = page ? strstr(page, "Printed by `mneme train --keys markdown`") : NULL, *want = keys.data;
  from = from ? strchr(from, '\n') : NULL;
  CHECK(from && want, "docs/recipes.md has no list of every key");
  if (from && want) {
    while (isspace((unsigned char)*from)) from++;
    while (isspace((unsigned char)*want)) want++;
    size_t same = 0, n = strlen(want);
    while (n && isspace((unsigned char)want[n - 1])) n--;
    while (same < n && from[same] == want[same]) same++;
    CHECK(same == n, "docs/recipes.md is not what `mneme train --keys markdown` prints, from \"%.60s\" on", from + same);
  }
  mn_text_free(&keys);
  free(page);
}

/* Does `word` stand in the page between backquotes, alone or among others? */
static bool named(const char *page, const char *word) {
  size_t n = strlen(word);
  for (const char *at = page; (at = strstr(at, word)) != NULL; at += n) {
    bool left = at == page || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
    bool right = !(isalnum((unsigned char)at[n]) || at[n] == '_');
    if (left && right) return true;
  }
  return false;
}

static void page_names(const char *path, const mn_field *fields) {
  char *page = read_page(path);
  for (const mn_field *f = fields; page && f && f->name; f++) CHECK(named(page, f->name), "docs/%s does not say what %s is", path, f->name);
  free(page);
}

static void test_a_page_names_every_key(void) {
  page_names("models/decoder.md", mn_block_fields);
  for (int i = 0; i < mn_model_count(); i++) {
    const mn_model_def *d = mn_model_at(i);
    char path[200];
    snprintf(path, sizeof path, "models/%s.md", d->name);
    page_names(path, d->fields);
    char *page = read_page(path);
    for (const mn_port *p = d->inputs; page && p->name; p++)
      CHECK(named(page, p->name), "docs/%s does not name the input %s", path, p->name);
    for (const mn_port *p = d->outputs; page && p->name; p++)
      CHECK(named(page, p->name), "docs/%s does not name the output %s", path, p->name);
    free(page);
  }
  for (int i = 0; i < mn_mixer_count(); i++) {
    const mn_mixer_def *d = mn_mixer_at(i);
    char path[200];
    snprintf(path, sizeof path, "systems/%s.md", d->page ? d->page : d->name);
    page_names(path, d->fields);
  }
}

/* A tensor by its name, or by that of its first brother; what belongs to a mixer inside is on that one's page. */
static bool names_tensor(const char *page, const char *name) {
  static const char *const inside[] = {"fading.", "mixers."};
  char first[200];
  for (int i = 0; i < 2; i++)
    if (!strncmp(name, inside[i], strlen(inside[i]))) return true;
  snprintf(first, sizeof first, "%s", name);
  for (char *p = first; (p = strchr(p, '.')); p++)
    if (isdigit((unsigned char)p[1])) p[1] = '0';
  return named(page, name) || named(page, first);
}

static void test_a_page_names_every_tensor(void) {
  for (int i = 0; i < MN_SMALL_MIXERS; i++) {
    const mn_value *v = NULL;
    mn_mixer m;
    mn_arena *arena = mn_arena_new();
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, 1);
    CHECK_OK(mn_yaml_parse(arena, "test", mn_small_mixers[i], strlen(mn_small_mixers[i]), &v));
    CHECK_OK(mn_mixer_parse(arena, v, "mixer", 8, &m));
    mn_mixer_apply(s, &m, mn_input(g, "x", MN_F32, MN_SHAPE(1, 8, 8)));
    CHECK_OK(mn_graph_status(g));
    char path[200];
    snprintf(path, sizeof path, "systems/%s.md", m.def->page ? m.def->page : m.def->name);
    char *own = read_page(path), *titans = read_page("systems/titans.md"); /* whose names ATLAS has, too */
    char *page = mn_format("%s%s", own, strstr(path, "atlas") ? titans : "");
    const bool around = !strcmp(m.def->name, "synaptic"); /* its base has no name of its own in the scope */
    const mn_param_info *params;
    const mn_built_state *states;
    const int n_params = mn_scope_params(s, &params, NULL), n_states = mn_scope_states(s, &states);
    for (int k = 0; k < n_params + n_states; k++) {
      const char *name = k < n_params ? params[k].name : states[k - n_params].info.name;
      if (around && strncmp(name, "synaptic.", 9) != 0) continue;
      CHECK(names_tensor(page, around ? name + 9 : name), "docs/%s does not name the tensor %s of %s", path, name, mn_small_mixers[i]);
    }
    free(own);
    free(titans);
    free(page);
    mn_graph_free(g);
    mn_arena_free(arena);
  }
}

int main(void) {
  RUN(test_every_key_is_listed);
  RUN(test_a_page_names_every_key);
  RUN(test_a_page_names_every_tensor);
  return test_end();
}
