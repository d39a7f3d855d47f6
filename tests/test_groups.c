/* test_groups.c - what must be true of groups of parameters, in order: what is frozen does not move, whatever decays, and has no
 * moment; a group's rate and decay are its own and nobody else's; a group that fits nothing is refused; a run with groups goes on to
 * the same bits. */
#include "train/groups.h"
#include "train/trainer_internal.h"
#include "train_helpers.h"

static mn_trainer *trained(mn_recipe *r, int steps) {
  mn_trainer *t = NULL;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  for (int i = 0; t && i < steps; i++) {
    mn_step_result s;
    CHECK_OK(mn_trainer_step(t, &s));
  }
  return t;
}

/* Of parameter i: largest difference between two trainings, or from the start. */
static double moved(const mn_trainer *a, const mn_trainer *b, int i) {
  double most = 0;
  for (int64_t k = 0, n = mn_shape_count(&a->params->info[i].shape); k < n; k++)
    most = fmax(most, fabs((double)((const float *)a->params->data[i])[k] - (double)((const float *)b->params->data[i])[k]));
  return most;
}

static void test_frozen_is_frozen(void) {
  static const char *const accumulate[] = {"train.accumulate=1", "train.accumulate=2"};
  static const char *const kind[] = {"train.optimizer={type: adamw, lr: 0.01, weight_decay: 0.5}",
                                     "train.optimizer={type: muon, lr: 0.01, weight_decay: 0.5}"};
  for (int c = 0; c < 4; c++) {
    mn_recipe *r = RECIPE(accumulate[c / 2], kind[c % 2], "train.groups=[{match: 'layers.0.*', frozen: true}]");
    mn_recipe *s = RECIPE(accumulate[c / 2], kind[c % 2]);
    mn_trainer *t = trained(r, 5), *start = trained(s, 0);
    int frozen = 0;
    for (int i = 0; t && start && i < t->params->n; i++) {
      const char *name = t->params->info[i].name;
      bool held = !strncmp(name, "layers.0.", 9);
      frozen += held;
      CHECK((moved(t, start, i) == 0) == held, "%s moved by %g", name, moved(t, start, i));
      CHECK((t->optimizer->m[i] == NULL) == held && (!held || !t->optimizer->v[i]), "%s: moments", name);
    }
    CHECK(frozen > 4, "%d parameters of layer 0", frozen);
    mn_trainer_free(t);
    mn_trainer_free(start);
    mn_recipe_free(r);
    mn_recipe_free(s);
  }
}

static void test_rate_and_decay_of_a_group(void) {
  static const char *const usual = "train.optimizer={lr: 0.01, weight_decay: 0.5}";
  mn_recipe *plain = RECIPE(usual), *same = RECIPE(usual, "train.groups=[{match: 'layers.*', lr: 0.01, weight_decay: 0.5}]");
  mn_recipe *own = RECIPE(usual, "train.groups=[{match: '*.mixer.*', lr: 0.001}, {match: 'layers.*', weight_decay: 0}]");
  mn_trainer *a = trained(plain, 1), *b = trained(same, 1), *c = trained(own, 1), *start = trained(plain, 0);
  for (int i = 0; a && b && c && start && i < a->params->n; i++) {
    const mn_param_info *p = &a->params->info[i];
    bool mixer = strstr(p->name, ".mixer.") != NULL, layer = !strncmp(p->name, "layers.", 7), decays = !(p->flags & MN_PARAM_NO_DECAY);
    CHECK(moved(a, b, i) == 0, "%s: a group that says what holds anyway changes it", p->name);
    double whole = moved(a, start, i), part = moved(c, start, i);
    if (mixer) CHECK(fabs(part / whole - 0.1) < 1e-3, "%s moves by %g of %g: a tenth of the rate", p->name, part, whole);
    else if (layer && decays) CHECK(part != whole, "%s: without decay it moves otherwise", p->name);
    else CHECK(moved(a, c, i) == 0, "%s is in no group, or has nothing to decay, and moves otherwise", p->name);
  }
  mn_trainer_free(a);
  mn_trainer_free(b);
  mn_trainer_free(c);
  mn_trainer_free(start);
  mn_recipe_free(plain);
  mn_recipe_free(same);
  mn_recipe_free(own);
}

static void test_names(void) {
  static const struct {
    const char *pattern, *name;
    bool fits;
  } cases[] = {{"*", "a.b", true},
               {"layers.*.mixer.*", "layers.3.mixer.q.weight", true},
               {"layers.?.x", "layers.3.x", true},
               {"layers.?.x", "layers.13.x", false},
               {"*.weight", "a.weight.b", false},
               {"a*b*c", "aXbXbXc", true},
               {"a", "ab", false},
               {"a*", "a", true},
               {"", "", true},
               {"", "a", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    CHECK(mn_name_matches(cases[i].pattern, cases[i].name) == cases[i].fits, "'%s' and '%s'", cases[i].pattern, cases[i].name);
}

static void test_what_is_refused(void) {
  static const struct {
    const char *set, *part, *more;
  } bad[] = {{"train.groups=[{match: 'layers.*.mixr.q_proj.weight', lr: 0.1}]", "fits no parameter", "mixer.q_proj.weight"},
             {"train.groups=[{match: '*', lr: 0.1}, {match: 'layers.*', frozen: true}]", "layers.*", "narrower"},
             {"train.groups=[{match: '*', frozen: true}]", "every parameter is frozen", ""}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_recipe *r = RECIPE(bad[i].set);
    mn_trainer *t = NULL;
    mn_status status = mn_trainer_new(r, 1, NULL, NULL, &t);
    CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), bad[i].part) && strstr(mn_message(), bad[i].more), "%s: %s", bad[i].set,
          mn_message());
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
  static const char *const keys[][2] = {{"train.groups=[{match: '*', frozen: true, lr: 0.1}]", "no effect"},
                                        {"train.groups=[{mach: '*'}]", "did you mean 'match'"},
                                        {"train.groups={match: '*'}", "must be a list"},
                                        {"train.groups=[7]", "train.groups[0] must be a map such as"}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    mn_recipe *r = NULL;
    CHECK(test_try_recipe(&keys[i][0], 1, &r) == MN_ERR_CONFIG && strstr(mn_message(), keys[i][1]), "%s: %s", keys[i][0], mn_message());
    mn_recipe_free(r);
  }
}

static void test_goes_on_to_the_same_bits(void) {
  static const char *const groups = "train.groups=[{match: 'layers.0.*', frozen: true}, {match: '*norm*', lr: 0.02}]";
  char hex[2][33], path[2][600];
  mn_train_result result;
  for (int k = 0; k < 2; k++) {
    snprintf(path[k], sizeof path[k], "%s", test_path(k ? "broken" : "straight"));
    for (int part = k ? 0 : 1; part < 2; part++) {
      mn_recipe *r = RECIPE(groups, part ? "train.steps=12" : "train.steps=7", "train.schedule={type: constant}");
      mn_train_options o = {.out_dir = path[k], .resume = k && part, .threads = 1, .db_path = ""};
      CHECK_OK(mn_train(r, &o, &result));
      mn_recipe_free(r);
    }
    char *file = mn_path_join(path[k], "model.safetensors"), *text;
    size_t n;
    CHECK_OK(mn_file_read(file, 1 << 24, &text, &n));
    uint64_t head;
    memcpy(&head, text, 8);
    mn_content_hash(text + 8 + head, n - 8 - head, hex[k]);
    free(text);
    free(file);
  }
  CHECK(!strcmp(hex[0], hex[1]), "a run with groups that was broken off ends otherwise");
}

int main(void) {
  test_setup("groups");
  RUN(test_names);
  RUN(test_frozen_is_frozen);
  RUN(test_rate_and_decay_of_a_group);
  RUN(test_what_is_refused);
  RUN(test_goes_on_to_the_same_bits);
  test_cleanup();
  return test_end();
}
