/* cli.c - the frame of the program: finds the verb, parses its options against its table, runs it, and turns the status
 * into one message and an exit code. The help pages are in help.c. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/nearest.h"
#include "base/threads.h"

/* ---- interruption ------------------------------------------------------------------------------------------------- */

static atomic_int stop_flag, signalled; /* asked to stop at all; by a signal */
static atomic_int in_part, part_stops;  /* SIGINT is for a part of the verb (mn_cli_part_begin); it came */
static atomic_int heard;                /* a signal that asked for either, */
static struct timespec last_request;    /* at this time; written by the handler alone */

/* timeout(1) and supervisors signal a process and then its whole group: what follows at once is the same request. */
static bool same_request(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - last_request.tv_sec) + 1e-9 * (double)(now.tv_nsec - last_request.tv_nsec) < 0.3;
}

static atomic_int of_parent; /* whose process has said it already */
void mn_cli_is_child(void) { of_parent = 1; }

static void on_signal(int sig) {
  if (heard && same_request()) return;
  if (sig == SIGINT && in_part && !stop_flag) {
    clock_gettime(CLOCK_MONOTONIC, &last_request);
    stop_flag = part_stops = heard = 1;
    return;
  }
  if (signalled) { /* asked twice: end at once, by the signal itself, so that the parent process sees it */
    signal(sig, SIG_DFL);
    raise(sig);
    return;
  }
  clock_gettime(CLOCK_MONOTONIC, &last_request);
  stop_flag = signalled = heard = 1;
  static const char text[] = "\nmneme: ending cleanly; interrupt again to end at once\n";
  const int before = errno; /* whoever was interrupted may be about to read it */
  ssize_t written = of_parent ? 0 : write(STDERR_FILENO, text, sizeof text - 1);
  (void)written;
  errno = before;
}

/* The limit of CPU time (ulimit -t): told every second from then on, until the hard limit ends the process. */
static void on_cpu_limit(int sig) {
  (void)sig;
  static const char text[] = "\nmneme: the limit of CPU time is reached: ending cleanly\n";
  const int before = errno;
  ssize_t written = stop_flag ? 0 : write(STDERR_FILENO, text, sizeof text - 1);
  (void)written;
  errno = before;
  stop_flag = 1;
}

/* Where the soft limit is the hard one (ulimit -t sets both), the system would kill without a word: asked for a little earlier. */
static void leave_time_to_end(void) {
  struct rlimit l;
  if (getrlimit(RLIMIT_CPU, &l) != 0 || l.rlim_max == RLIM_INFINITY || l.rlim_cur < l.rlim_max || l.rlim_max < 2) return;
  rlim_t margin = l.rlim_max / 10 > 10 ? 10 : l.rlim_max / 10 < 1 ? 1 : l.rlim_max / 10;
  l.rlim_cur = l.rlim_max - margin;
  (void)setrlimit(RLIMIT_CPU, &l);
}

static void catch_signals(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_NODEFER; /* so that raise() above takes effect inside the handler */
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct sigaction hangup; /* a terminal that closes asks the same, but for who said that it should not (nohup) */
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
  action.sa_handler = on_cpu_limit;
  sigaction(SIGXCPU, &action, NULL);
  leave_time_to_end();
  signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of a file's size (ulimit -f) fails and says so */
  signal(SIGPIPE, SIG_IGN);
}

void mn_cli_part_begin(void) {
  part_stops = 0;
  in_part = 1;
}
bool mn_cli_part_end(void) {
  const bool stopped = part_stops;
  in_part = 0;
  part_stops = 0;
  if (stopped && !signalled) stop_flag = 0;
  return stopped;
}

void mn_cli_ask_to_stop(void) { stop_flag = 1; }
bool mn_cli_interrupted(void) { return stop_flag != 0; }
const atomic_int *mn_cli_stop_flag(void) { return &stop_flag; }

/* ---- options ------------------------------------------------------------------------------------------------------ */

static const mn_option *find_option(const mn_verb *verb, const char *name, size_t n) {
  for (const mn_option *o = verb->options; o && o->name; o++)
    if (strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
  for (const mn_option *o = mn_cli_common_options; o->name; o++)
    if (mn_cli_accepts(verb, o) && strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
  return NULL;
}

static const char *nearest_option(const mn_verb *verb, const char *name) {
  const char *names[128];
  int n = 0;
  for (const mn_option *o = verb->options; o && o->name && n < 100; o++) names[n++] = o->name;
  for (const mn_option *o = mn_cli_common_options; o->name && n < 128; o++)
    if (mn_cli_accepts(verb, o)) names[n++] = o->name;
  return mn_nearest(name, names, n);
}

static mn_status refuse_option(const mn_verb *verb, const char *arg) {
  char name[64];
  snprintf(name, sizeof name, "%s", arg + strspn(arg, "-"));
  name[strcspn(name, "=")] = 0;
  const char *near = nearest_option(verb, name);
  if (near) return mn_fail(MN_ERR_CONFIG, "%s has no option %s; did you mean --%s?", verb->name, arg, near);
  return mn_fail(MN_ERR_CONFIG, "%s has no option %s; `mneme %s --help` lists its options", verb->name, arg, verb->name);
}

/* Fills cli->args and cli->values, which have room for argc entries each. */
static mn_status parse(mn_cli *cli, int argc, char **argv, const char **args, mn_cli_value *values) {
  const mn_verb *verb = cli->verb;
  bool options_end = false;
  cli->args = args;
  cli->values = values;
  for (int i = 0; i < argc; i++) {
    char *arg = argv[i];
    if (options_end || arg[0] != '-' || !arg[1] || (arg[1] >= '0' && arg[1] <= '9')) {
      args[cli->n_args++] = arg;
      continue;
    }
    if (!strcmp(arg, "--")) {
      options_end = true;
      continue;
    }
    if (arg[1] != '-') return refuse_option(verb, arg);
    size_t n = strcspn(arg + 2, "=");
    const mn_option *option = find_option(verb, arg + 2, n);
    if (!option) return refuse_option(verb, arg);
    const char *text = arg[2 + n] == '=' ? arg + 3 + n : NULL;
    if (!option->metavar && text) return mn_fail(MN_ERR_CONFIG, "--%s takes no value: write --%s alone", option->name, option->name);
    if (option->metavar && !text) {
      if (i + 1 >= argc) return mn_fail(MN_ERR_CONFIG, "--%s needs a value: --%s %s", option->name, option->name, option->metavar);
      text = argv[++i];
    }
    if (text && !*text)
      return mn_fail(MN_ERR_CONFIG, "--%s is empty: write --%s %s, or leave it out", option->name, option->name, option->metavar);
    for (int j = 0; !(option->flags & MN_OPTION_REPEATS) && option->metavar && j < cli->n_values; j++)
      if (values[j].option == option)
        return mn_fail(MN_ERR_CONFIG, "--%s is given twice: '%s' and '%s'; keep one", option->name, values[j].text, text);
    values[cli->n_values++] = (mn_cli_value){option, text};
  }
  for (int i = 0; i < cli->n_args; i++)
    if (!*cli->args[i])
      return mn_fail(MN_ERR_CONFIG, "%s: an argument is empty; usage is `mneme %s %s`", verb->name, verb->name, verb->usage);
  if (cli->n_args < verb->min_args)
    return mn_fail(MN_ERR_CONFIG, "%s needs more: usage is `mneme %s %s`", verb->name, verb->name, verb->usage);
  if (verb->max_args >= 0 && cli->n_args > verb->max_args)
    return mn_fail(MN_ERR_CONFIG, "%s does not know what to do with '%s': usage is `mneme %s %s`", verb->name, cli->args[verb->max_args],
                   verb->name, verb->usage);
  return MN_OK;
}

static const mn_option *option_of(const mn_cli *cli, const char *name) { return find_option(cli->verb, name, strlen(name)); }

const char *mn_cli_nth(const mn_cli *cli, const char *name, int i) {
  const mn_option *option = option_of(cli, name);
  bool any = false;
  for (int j = 0; j < cli->n_values; j++) {
    if (cli->values[j].option != option) continue;
    any = true;
    if (i-- == 0) return cli->values[j].text;
  }
  return !any && i == 0 && option ? option->default_value : NULL;
}

const char *mn_cli_get(const mn_cli *cli, const char *name) {
  const mn_option *option = option_of(cli, name);
  for (int j = cli->n_values - 1; j >= 0; j--)
    if (cli->values[j].option == option) return cli->values[j].text;
  return option ? option->default_value : NULL;
}

bool mn_cli_given(const mn_cli *cli, const char *name) {
  const mn_option *option = option_of(cli, name);
  for (int j = 0; j < cli->n_values; j++)
    if (cli->values[j].option == option) return true;
  return false;
}

/* strtoll and strtod take blanks, signs before blanks, hexadecimal and "infinity"; a command line means digits. */
static bool is_number(const char *text, const char *digits) {
  return *text && text[strspn(text, digits)] == 0 && strpbrk(text, "0123456789");
}

static mn_status whole_number(const char *name, const char *text, int64_t min, int64_t max, int64_t *out) {
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (!is_number(text, "-0123456789") || *end || errno || value < min || value > max) {
    if (max == INT64_MAX)
      return mn_fail(MN_ERR_CONFIG, "--%s: expected a whole number of at least %lld, got '%s'", name, (long long)min, text);
    return mn_fail(MN_ERR_CONFIG, "--%s: expected a whole number from %lld to %lld, got '%s'", name, (long long)min, (long long)max, text);
  }
  *out = value;
  return MN_OK;
}

mn_status mn_cli_int(const mn_cli *cli, const char *name, int64_t min, int64_t max, int64_t *out) {
  const char *text = mn_cli_get(cli, name);
  return text ? whole_number(name, text, min, max, out) : MN_OK;
}

mn_status mn_cli_ints(const mn_cli *cli, const char *name, int64_t min, int64_t max, int64_t *out, int most, int *n) {
  const char *text = mn_cli_get(cli, name);
  char item[40];
  for (*n = 0; text; *n += 1) {
    const size_t len = strcspn(text, ",");
    if (*n == most) return mn_fail(MN_ERR_CONFIG, "--%s: more than %d numbers", name, most);
    if (len >= sizeof item) return mn_fail(MN_ERR_CONFIG, "--%s: a number of %zu signs; 64 bits have at most 20", name, len);
    memcpy(item, text, len);
    item[len] = 0;
    MN_TRY(whole_number(name, item, min, max, &out[*n]));
    text = text[len] ? text + len + 1 : NULL;
  }
  return MN_OK;
}

mn_status mn_cli_float(const mn_cli *cli, const char *name, double min, double max, double *out) {
  const char *text = mn_cli_get(cli, name);
  if (!text) return MN_OK;
  char *end;
  double value = strtod(text, &end);
  if (!is_number(text, "-+.eE0123456789") || *end || !(value >= min && value <= max))
    return mn_fail(MN_ERR_CONFIG, "--%s: expected a number from %g to %g, got '%s'", name, min, max, text);
  *out = value;
  return MN_OK;
}

mn_status mn_cli_choice_of(const char *name, const char *text, const char *const *choices, int *out) {
  char list[512] = "";
  int n = 0;
  for (; choices[n]; n++) {
    if (!strcmp(choices[n], text)) return *out = n, MN_OK;
    size_t used = strlen(list);
    snprintf(list + used, sizeof list - used, "%s%s", n ? ", " : "", choices[n]);
  }
  const char *near = mn_nearest(text, choices, n);
  if (near) return mn_fail(MN_ERR_CONFIG, "--%s: '%s' is not one of %s; did you mean %s?", name, text, list, near);
  return mn_fail(MN_ERR_CONFIG, "--%s: '%s' is not one of %s", name, text, list);
}

mn_status mn_cli_choice(const mn_cli *cli, const char *name, const char *const *choices, int *out) {
  const char *text = mn_cli_get(cli, name);
  return text ? mn_cli_choice_of(name, text, choices, out) : MN_OK;
}

mn_status mn_cli_precision(const mn_cli *cli, const char *name, bool f64, mn_dtype *out) {
  int precision = MN_PRECISION_F32;
  MN_TRY(mn_cli_choice(cli, name, f64 ? mn_precisions_and_f64 : mn_precisions, &precision));
  *out = mn_precision_type(precision);
  return MN_OK;
}

mn_status mn_cli_only(const mn_cli *cli, bool applies, const char *what, const char *names) {
  char name[64];
  for (; *names && !applies; names += strspn(names, " ")) {
    size_t n = strcspn(names, " ");
    snprintf(name, sizeof name, "%.*s", (int)n, names);
    if (mn_cli_given(cli, name)) return mn_fail(MN_ERR_CONFIG, "--%s has no effect here: it is for %s", name, what);
    names += n;
  }
  return MN_OK;
}

/* A seed that is said twice, in two ways. */
static mn_status one_seed(const mn_cli *cli) {
  for (int i = 0; i < cli->n_set && cli->seed_given; i++)
    if (!strncmp(cli->set[i], "seed=", 5)) return mn_fail(MN_ERR_CONFIG, "--seed and --set %s are both given; keep one", cli->set[i]);
  return MN_OK;
}

/* The common options' values go into fields of their own. */
static mn_status read_common(mn_cli *cli, const char **set) {
  cli->json = mn_cli_given(cli, "json");
  cli->quiet = mn_cli_given(cli, "quiet");
  if (cli->verb->common & MN_CLI_BACKEND) cli->backend = mn_cli_get(cli, "backend");
  if (cli->verb->common & MN_CLI_THREADS) {
    int64_t threads = 0;
    MN_TRY(mn_cli_int(cli, "threads", 1, 4096, &threads));
    cli->threads = (int)threads;
  }
  if (cli->verb->common & MN_CLI_SEED) {
    int64_t seed = 0;
    MN_TRY(mn_cli_int(cli, "seed", 0, INT64_MAX, &seed));
    cli->seed = (uint64_t)seed;
    cli->seed_given = mn_cli_given(cli, "seed");
  }
  if (cli->verb->common & MN_CLI_OUT) cli->out_dir = mn_cli_get(cli, "out");
  if (cli->verb->common & MN_CLI_SET) {
    cli->set = set;
    for (const char *text; (text = mn_cli_nth(cli, "set", cli->n_set)); cli->n_set++) {
      if (!strchr(text, '=') || text[0] == '=')
        return mn_fail(MN_ERR_CONFIG, "--set: expected KEY=VALUE, for example train.steps=200, got '%s'", text);
      set[cli->n_set] = text;
    }
  }
  return one_seed(cli);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

json_t *mn_cli_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

mn_status mn_cli_json(mn_cli *cli, json_t *document) {
  cli->json_printed = true;
  return mn_print_json(document, JSON_INDENT(2));
}

void mn_cli_json_line(mn_cli *cli, json_t *record) {
  cli->json_printed = true;
  if (mn_print_json(record, JSON_COMPACT) != MN_OK) mn_log_write(MN_LOG_WARN, "%s", mn_message());
  mn_print_flush();
}

bool mn_cli_color(FILE *stream) {
  const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
  return isatty(fileno(stream)) && !(no_color && *no_color) && term && strcmp(term, "dumb");
}

int mn_cli_columns(FILE *stream) {
  struct winsize size;
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

static int exit_code(mn_status status) {
  switch (status) {
  case MN_OK:
    return MN_EXIT_OK;
  case MN_ERR_ARG:
  case MN_ERR_CONFIG:
    return MN_EXIT_USAGE;
  case MN_ERR_CANCELLED:
    return MN_EXIT_INTERRUPTED;
  default:
    return MN_EXIT_FAILURE;
  }
}

/* The one place where an error is printed. */
static int report(mn_status status, bool json) {
  int code = exit_code(status);
  bool reader_left;
  char *message = mn_strdup(*mn_message() ? mn_message() : mn_status_name(status));
  const char *text = message ? message : mn_status_name(status);
  if (json)
    mn_print_json(json_pack("{s:{s:i,s:s,s:o}}", "error", "exit_code", code, "kind", mn_status_name(status), "message", mn_cli_text(text)),
                  JSON_INDENT(2));
  if (!json || mn_print_end(&reader_left) != MN_OK) mn_print_error(text); /* standard output may be what failed */
  free(message);
  return code;
}

/* Ends a verb or a page: a full disk behind standard output is a failure; a reader that went away is not, and a verb that
 * ended because of it was not interrupted. */
static mn_status end_output(mn_status status) {
  bool reader_left;
  char *why = status == MN_OK ? NULL : mn_strdup(mn_message());
  mn_status printed = mn_print_end(&reader_left);
  bool stopped_by_it = status == MN_ERR_CANCELLED && !signalled;
  if (status == MN_OK || (stopped_by_it && printed != MN_OK)) status = printed;
  else if (stopped_by_it && reader_left) status = MN_OK;
  else if (why) mn_fail(status, "%s", why);
  free(why);
  return status;
}

/* ---- the program -------------------------------------------------------------------------------------------------- */

static bool has_word(int argc, char **argv, const char *word) {
  for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
    if (!strcmp(argv[i], word)) return true;
  return false;
}

static mn_status find_verb(const char *name, const mn_verb *const *verbs, int n, const mn_verb **out) {
  const char *names[64];
  int count = 0;
  for (int i = 0; i < n; i++) {
    if (!strcmp(verbs[i]->name, name)) return *out = verbs[i], MN_OK;
    if (count < 64) names[count++] = verbs[i]->name;
  }
  const char *near = mn_nearest(name, names, count);
  if (name[0] == '-') return mn_fail(MN_ERR_CONFIG, "%s: options come after a verb; `mneme --help` lists the verbs", name);
  if (near) return mn_fail(MN_ERR_CONFIG, "there is no verb '%s'; did you mean `mneme %s`?", name, near);
  return mn_fail(MN_ERR_CONFIG, "there is no verb '%s'; `mneme --help` lists them", name);
}

static int run_verb(const mn_verb *verb, int argc, char **argv, bool json) {
  const size_t room = (size_t)argc + 1;
  const char **args = mn_calloc(room, sizeof *args), **set = mn_calloc(room, sizeof *set);
  mn_cli_value *values = mn_calloc(room, sizeof *values);
  mn_cli cli = {.verb = verb};
  mn_status status = args && set && values ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) status = parse(&cli, argc, argv, args, values);
  if (status == MN_OK) status = read_common(&cli, set);
  if (status == MN_OK) status = mn_cli_try_outputs(&cli);
  if (status == MN_OK) status = verb->run(&cli);
  status = end_output(status);
  /* A verb that already printed its document (the state it ended in) keeps stdout to itself. */
  int code = status == MN_OK ? (cli.bars_short ? MN_EXIT_BAR_SHORT : MN_EXIT_OK) : report(status, json && !cli.json_printed);
  free(args);
  free(set);
  free(values);
  return code;
}

static int end_page(bool json) {
  mn_status status = end_output(MN_OK);
  return status == MN_OK ? MN_EXIT_OK : report(status, json);
}

/* Words after --help, --version and help VERB; and MNEME_LOG, which nobody else would refuse. */
static mn_status check_words(int argc, char **argv) {
  static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
  const char *first = argv[1], *level = getenv("MNEME_LOG");
  int most = !strcmp(first, "--help") || !strcmp(first, "-h") || !strcmp(first, "--version") ? 2 : !strcmp(first, "help") ? 3 : argc;
  if (most < argc && !strcmp(argv[most], "--json")) most++;
  if (most < argc)
    return mn_fail(MN_ERR_CONFIG, "%s does not know what to do with '%s'; `mneme --help` lists the verbs", first, argv[most]);
  int known = 0;
  while (level && *level && levels[known] && strcmp(levels[known], level)) known++;
  if (level && *level && !levels[known]) return mn_fail(MN_ERR_CONFIG, "MNEME_LOG is '%s'; it can be error, warn, info or debug", level);
  return MN_OK;
}

/* A stack that is too small ends a process without a word. It grows up to the limit of the moment, so the soft one is raised as far as the
 * hard one allows. */
static mn_status check_stack(void) {
  struct rlimit l;
  if (getrlimit(RLIMIT_STACK, &l) != 0 || l.rlim_cur == RLIM_INFINITY || l.rlim_cur >= MN_STACK_LEAST) return MN_OK;
  l.rlim_cur = l.rlim_max == RLIM_INFINITY || l.rlim_max > MN_STACK_LEAST ? MN_STACK_LEAST : l.rlim_max;
  if (l.rlim_cur >= MN_STACK_LEAST && setrlimit(RLIMIT_STACK, &l) == 0) return MN_OK;
  return mn_fail(MN_ERR_MEMORY, "the stack may have %llu kB (ulimit -s), and %d are needed", (unsigned long long)l.rlim_cur >> 10,
                 MN_STACK_LEAST >> 10);
}

int mn_cli_main(int argc, char **argv, const mn_verb *const *verbs, int n_verbs) {
  mn_print_begin();
  stop_flag = signalled;
  catch_signals();
  mn_stop_watch(&stop_flag);
  if (argc < 2) {
    mn_cli_print_verbs(stderr, verbs, n_verbs);
    return MN_EXIT_USAGE;
  }
  bool json = has_word(argc, argv, "--json");
  const char *first = argv[1];
  mn_status status = check_stack();
  if (status == MN_OK) status = check_words(argc, argv);
  if (status != MN_OK) return report(status, json);
  if (!strcmp(first, "--help") || !strcmp(first, "-h") || (!strcmp(first, "help") && argc == 2)) {
    mn_cli_print_verbs(stdout, verbs, n_verbs);
    return end_page(json);
  }
  if (!strcmp(first, "--version")) {
    mn_cli_print_version(stdout, json);
    return end_page(json);
  }
  bool help_first = !strcmp(first, "help"); /* mneme help VERB */
  const mn_verb *verb = NULL;
  status = find_verb(help_first ? argv[2] : first, verbs, n_verbs, &verb);
  if (status != MN_OK) return report(status, json);
  if (help_first || has_word(argc - 2, argv + 2, "--help") || has_word(argc - 2, argv + 2, "-h")) {
    mn_cli_print_verb(stdout, verb);
    return end_page(json);
  }
  return run_verb(verb, argc - 2, argv + 2, json);
}
