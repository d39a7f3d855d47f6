/* help.c - the pages of `mneme --help`, `mneme VERB --help` and `mneme --version`, printed from the verbs' tables. */
#include <string.h>
#include <sys/utsname.h>

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "cli/cli.h"
#include "mneme_commit.h"

const mn_option mn_cli_common_options[] = {{"set", "KEY=VALUE", NULL, "change one key of the recipe; may be repeated", MN_OPTION_REPEATS},
                                           {"out", "DIR", NULL, "the directory that results are written to", 0},
                                           {"threads", "N", NULL, "threads to use (all usable processors unless given)", 0},
                                           {"backend", "NAME", NULL, "what computes", 0}, /* and which there are: option_help */
                                           {"seed", "N", NULL, "seed of all random numbers (the recipe's unless given)", 0},
                                           {"json", NULL, NULL, "print JSON for machines; errors too", 0},
                                           {"quiet", NULL, NULL, "no progress and no remarks", 0},
                                           {"help", NULL, NULL, "this page", 0},
                                           {0}};

bool mn_cli_accepts(const mn_verb *verb, const mn_option *common) {
  static const struct {
    const char *name;
    unsigned bit;
  } bits[] = {{"threads", MN_CLI_THREADS}, {"seed", MN_CLI_SEED}, {"set", MN_CLI_SET}, {"out", MN_CLI_OUT}, {"backend", MN_CLI_BACKEND}};
  for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
    if (!strcmp(common->name, bits[i].name)) return verb->common & bits[i].bit;
  return true;
}

/* Prints `text` in lines of at most `width` columns that begin at column `indent`; the cursor is at `column` now. */
static void print_wrapped(FILE *out, const char *text, int column, int indent, int width) {
  while (*text) {
    if (*text == '\n') {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
      text++;
      continue;
    }
    int n = (int)strcspn(text, " \n");
    if (column > indent && column + n + 1 > width) {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
    } else if (column > indent) {
      fputc(' ', out);
      column++;
    }
    fprintf(out, "%.*s", n, text);
    column += n;
    text += n;
    while (*text == ' ') text++;
  }
  fputc('\n', out);
}

static void heading(FILE *out, const char *text) {
  bool color = mn_cli_color(out);
  fprintf(out, "\n%s%s%s\n", color ? "\033[1m" : "", text, color ? "\033[0m" : "");
}

static int label_of(const mn_option *o, char *label, size_t size) {
  return snprintf(label, size, "--%s%s%s", o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
}

/* With the default; of --backend with the names of those there are, the usual one first. */
static void option_help(const mn_option *o, char *help, size_t size) {
  int n = snprintf(help, size, "%s%s%s%s", o->help, o->default_value ? " (default " : "", o->default_value ? o->default_value : "",
                   o->default_value ? ")" : "");
  if (strcmp(o->name, "backend") != 0) return;
  for (int i = 0; i < mn_backend_count() && n > 0 && (size_t)n < size; i++)
    n += snprintf(help + n, size - (size_t)n, "%s%s", i ? ", " : ": ", mn_backend_name(i));
  if (n > 0 && (size_t)n < size) snprintf(help + n, size - (size_t)n, " (default %s)", mn_backend_name(0));
}

static void print_option(FILE *out, const mn_option *o, int label_width, int width) {
  char label[96], help[640];
  int n = label_of(o, label, sizeof label);
  option_help(o, help, sizeof help);
  int column = 2 + label_width + 2;
  if (n > label_width) fprintf(out, "  %s\n%*s", label, column, "");
  else fprintf(out, "  %-*s  ", label_width, label);
  print_wrapped(out, help, column, column, width);
}

static int page_width(FILE *out) {
  int columns = mn_cli_columns(out);
  return columns > 100 ? 100 : columns;
}

void mn_cli_print_verb(FILE *out, const mn_verb *verb) {
  int width = page_width(out), label_width = 0;
  char label[96];
  for (const mn_option *o = verb->options; o && o->name; o++) {
    int n = label_of(o, label, sizeof label);
    if (n > label_width && n <= 26) label_width = n;
  }
  if (label_width < 15) label_width = 15; /* the widest common option: --set KEY=VALUE */
  fprintf(out, "mneme %s: %s\n", verb->name, verb->summary);
  heading(out, "Usage");
  fprintf(out, "  mneme %s %s\n", verb->name, verb->usage);
  if (verb->about) {
    fprintf(out, "\n  ");
    print_wrapped(out, verb->about, 2, 2, width);
  }
  if (verb->options && verb->options->name) {
    heading(out, "Options");
    for (const mn_option *o = verb->options; o->name; o++) print_option(out, o, label_width, width);
  }
  heading(out, "Options that other verbs share");
  for (const mn_option *o = mn_cli_common_options; o->name; o++) {
    bool own = false; /* a verb may give a common name its own meaning, such as --out FILE */
    for (const mn_option *v = verb->options; v && v->name; v++) own = own || !strcmp(v->name, o->name);
    if (!own && mn_cli_accepts(verb, o)) print_option(out, o, label_width, width);
  }
  if (verb->examples && verb->examples[0]) {
    heading(out, "Examples");
    for (int i = 0; verb->examples[i]; i++) fprintf(out, "  %s\n", verb->examples[i]);
  }
  heading(out, "Exit status");
  fprintf(out, "  ");
  print_wrapped(out,
                "0 done; 1 failure; 2 wrong usage or configuration; 3 interrupted, with what was promised saved; "
                "4 all ran, but a bar was short.",
                2, 2, width);
}

void mn_cli_print_verbs(FILE *out, const mn_verb *const *verbs, int n_verbs) {
  static const char *const headings[MN_VERB_PURPOSES] = {"Train and compare", "Use a model", "Look inside", "Measure"};
  fprintf(out, "mneme: train, compare, stream and serve sequence models with memory\n");
  heading(out, "Usage");
  fprintf(out, "  mneme VERB [arguments] [options]\n"
               "  mneme VERB --help    one page about a verb\n"
               "  mneme --version      version, commit, instruction sets and backends\n");
  for (int purpose = 0; purpose < MN_VERB_PURPOSES; purpose++) {
    bool any = false;
    for (int i = 0; i < n_verbs; i++) {
      if ((int)verbs[i]->purpose != purpose) continue;
      if (!any) heading(out, headings[purpose]);
      any = true;
      fprintf(out, "  %-10s  ", verbs[i]->name);
      print_wrapped(out, verbs[i]->summary, 14, 14, page_width(out));
    }
  }
  fprintf(out, "\nAn option is written --name VALUE or --name=VALUE; -- ends the options. With --json, verbs and errors "
               "are JSON.\nEnvironment: MNEME_HOME, where runs and caches are kept (default ./runs); MNEME_CPU_ISA, "
               "the instruction\nset to use; MNEME_LOG, error, warn, info or debug; NO_COLOR.\n");
}

/* ---- version ------------------------------------------------------------------------------------------------------ */

void mn_cli_print_version(FILE *out, bool json) {
  struct utsname machine = {0};
  uname(&machine);
  mn_isa best = mn_isa_best(), used = best;
  const char *refused = mn_isa_choose(&used) == MN_OK ? NULL : mn_message(); /* MNEME_CPU_ISA may ask too much */
  if (json) {
    json_t *list = json_array(), *backends = json_array();
    for (int i = 0; i <= (int)best; i++) json_array_append_new(list, json_string(mn_isa_name((mn_isa)i)));
    for (int i = 0; i < mn_backend_count(); i++) json_array_append_new(backends, json_string(mn_backend_name(i)));
    json_t *doc = json_pack("{s:s,s:s?,s:s,s:i,s:o,s:s?,s:s?,s:o}", "version", MN_VERSION, "commit", *MN_COMMIT ? MN_COMMIT : NULL,
                            "machine", machine.machine, "processors", mn_cpu_count(), "isa", list, "isa_used",
                            refused ? NULL : mn_isa_name(used), "isa_error", refused, "backends", backends);
    json_dumpf(doc, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(doc);
    return;
  }
  fprintf(out, "mneme %s%s%s%s\n", MN_VERSION, *MN_COMMIT ? " (" : "", MN_COMMIT, *MN_COMMIT ? ")" : "");
  fprintf(out, "machine   %s, %d usable processors\nisa       ", machine.machine, mn_cpu_count());
  for (int i = 0; i <= (int)best; i++) fprintf(out, "%s%s", i ? ", " : "", mn_isa_name((mn_isa)i));
  fprintf(out, "; using %s\nbackends  ", refused ? refused : mn_isa_name(used));
  for (int i = 0; i < mn_backend_count(); i++) fprintf(out, "%s%s", i ? ", " : "", mn_backend_name(i));
  fputc('\n', out);
}
