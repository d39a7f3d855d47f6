/* cli.h - the frame that every verb of the `mneme` program stands in.
 *
 * HOW TO ADD A VERB. Write src/cli/verb_<name>.c that defines one table and one function:
 *
 *     static const mn_option options[] = {
 *       {"steps", "N", "100", "training steps", 0},          // --steps 200 or --steps=200
 *       {"resume", NULL, NULL, "go on from the last checkpoint", 0}, // a flag: metavar is NULL
 *       {"tag", "WORD", NULL, "may be given again", MN_OPTION_REPEATS},
 *       {"csv", "FILE", NULL, "where the table goes", MN_OPTION_OUTPUT}, // tried before the verb runs
 *       {0}};
 *     static const char *const examples[] = {"mneme train recipes/quick.yaml --out runs/quick", NULL};
 *     static mn_status run(mn_cli *cli) {
 *       int64_t steps;
 *       MN_TRY(mn_cli_int(cli, "steps", 1, INT64_MAX, &steps));
 *       ...
 *       return MN_OK;
 *     }
 *     const mn_verb mn_verb_train = {.name = "train", .purpose = MN_VERB_TRAIN, .summary = "train a model", ...};
 *
 * CMake finds the file and puts mn_verb_<name> into the table: nothing else is edited. The frame parses and checks the
 * command line against the tables, prints `mneme VERB --help` from them, and turns the returned status into the exit
 * code and, once, into the message. So a verb
 *   - returns mn_fail(...) with what happened, where, and the remedy; it never prints an error and never exits;
 *   - writes results with mn_print: text for people, or one JSON document (mn_cli_json) when cli->json;
 *   - writes remarks with mn_cli_note and progress with progress.h: both go to stderr, and obey --quiet and --json;
 *   - in long work looks at mn_cli_interrupted() (or hands mn_cli_stop_flag() to the library), saves what it promised,
 *     and returns MN_ERR_CANCELLED: exit code 3;
 *   - that measures against bars sets cli->bars_short when one is not reached: exit code 4.
 *
 * EXIT CODES. 0 done; 1 failure; 2 wrong usage or configuration (MN_ERR_ARG, MN_ERR_CONFIG); 3 interrupted, state
 * saved where promised; 4 all ran, but a bar was short. With --json an error is {"error": {...}} on stdout.
 *
 * SIGNALS. The first SIGINT, SIGTERM or SIGHUP asks for a clean end, another one, later than a moment, ends the process at once. SIGPIPE is ignored: a
 * reader that goes away (`mneme stream ... | head -1`) is no error. A verb that prints as it goes ends then, as cleanly as after a signal, with
 * exit code 0; a training, which prints at its end, goes on. */
#ifndef MN_CLI_H
#define MN_CLI_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/precision.h"

enum { MN_EXIT_OK = 0, MN_EXIT_FAILURE = 1, MN_EXIT_USAGE = 2, MN_EXIT_INTERRUPTED = 3, MN_EXIT_BAR_SHORT = 4 };

typedef enum mn_verb_purpose {                  /* the headings of `mneme --help`, in this order */
                               MN_VERB_TRAIN,   /* train and compare        */
                               MN_VERB_USE,     /* run a trained model      */
                               MN_VERB_LOOK,    /* look inside              */
                               MN_VERB_MEASURE, /* measure                  */
                               MN_VERB_PURPOSES
} mn_verb_purpose;

/* MN_OPTION_OUTPUT: the value names a file that the verb writes, MN_OPTION_PICTURE one that is .svg or .png: it is tried before the verb
 * runs, so that nobody works for an hour to find its directory missing, and it may be nothing that the verb reads (outputs.c). Where
 * NAME-out has a NAME-in, both may name one file: it is read before the new one takes its place. MN_OPTION_APPENDS: what is written there
 * comes behind what stands there; nothing that the verb reads, too, and else not tried. MN_OPTION_STREAM: "-" is a stream of the process; in
 * other options that name a file it is refused. */
enum {
  MN_OPTION_REPEATS = 1,
  MN_OPTION_OUTPUT = 2,
  MN_OPTION_PICTURE = 4 | MN_OPTION_OUTPUT,
  MN_OPTION_APPENDS = 8,
  MN_OPTION_STREAM = 16
};

typedef struct mn_option {
  const char *name;          /* without the dashes; NULL ends a table                         */
  const char *metavar;       /* what the value is called in the help; NULL: a flag            */
  const char *default_value; /* used when the option is absent, and shown; NULL: none         */
  const char *help;          /* one line, lower case, no full stop                            */
  unsigned flags;            /* MN_OPTION_REPEATS | ...                                       */
} mn_option;

/* Common options a verb accepts besides --json, --quiet and --help, which all do. */
enum { MN_CLI_THREADS = 1, MN_CLI_SEED = 2, MN_CLI_SET = 4, MN_CLI_OUT = 8, MN_CLI_BACKEND = 16 };

/* What a verb takes where it says MODEL (checkpoint/bundle.h). */
#define MN_CLI_MODEL "a directory that mneme train --out made, one of Hugging Face's, or a GGUF file"

typedef struct mn_cli mn_cli;

typedef struct mn_verb {
  const char *name;
  mn_verb_purpose purpose;
  const char *summary;         /* one line, lower case, no full stop: the list of verbs shows it      */
  const char *usage;           /* what follows the verb's name: "RECIPE.yaml [options]"               */
  const char *about;           /* a short paragraph or two, '\n' between paragraphs; may be NULL      */
  const mn_option *options;    /* ends with {0}; may be NULL                                          */
  const char *const *examples; /* ends with NULL; may be NULL                                         */
  unsigned common;             /* MN_CLI_THREADS | ...                                                */
  int min_args, max_args;      /* how many words besides options; max_args < 0: any number            */
  mn_status (*run)(mn_cli *cli);
} mn_verb;

struct mn_cli { /* what a verb is given */
  const mn_verb *verb;
  const char *const *args; /* the words besides options, in order                       */
  int n_args;
  bool json, quiet;
  const char *backend; /* by name; NULL: the usual one                          */
  int threads;         /* 0: all usable processors                                  */
  bool seed_given;     /* --seed was given; otherwise the recipe's seed holds       */
  uint64_t seed;
  const char *out_dir;    /* --out DIR; NULL when absent                               */
  const char *const *set; /* --set key=value, in order; each is known to have its '='  */
  int n_set;
  bool bars_short;      /* set by the verb                                           */
  struct mn_cli_value { /* the options that were given, in order */
    const mn_option *option;
    const char *text; /* NULL for a flag */
  } * values;
  int n_values;
  bool json_printed;
};

typedef struct mn_cli_value mn_cli_value;

/* The table that CMake generates from src/cli/verb_*.c. */
extern const mn_verb *const mn_verbs[];
extern const int mn_n_verbs;

/* Tries every output that was given (the frame does it). */
mn_status mn_cli_try_outputs(const mn_cli *cli);
struct mn_plot; /* format/plot.h */
/* Into every file that --plot names, of a verb that has the option. */
mn_status mn_cli_draw(const mn_cli *cli, const struct mn_plot *plot);

/* ---- reading options (names without dashes; asking for one that is not in the verb's table is a defect) ------------ */
const char *mn_cli_get(const mn_cli *cli, const char *name);        /* last value given, else the default, else NULL          */
bool mn_cli_given(const mn_cli *cli, const char *name);             /* a flag was set, or a value was given                   */
const char *mn_cli_nth(const mn_cli *cli, const char *name, int i); /* i-th value given; the default counts as 0-th    */
/* Checked numbers: MN_ERR_CONFIG with the option's name and the range. An absent option without default: *out stays. */
mn_status mn_cli_int(const mn_cli *cli, const char *name, int64_t min, int64_t max, int64_t *out);
/* Several of them, as in 256,1024,4096: *n of at most `most`. */
mn_status mn_cli_ints(const mn_cli *cli, const char *name, int64_t min, int64_t max, int64_t *out, int most, int *n);
mn_status mn_cli_float(const mn_cli *cli, const char *name, double min, double max, double *out);
/* One of the words of `choices` (ends with NULL): *out is its index. */
mn_status mn_cli_choice(const mn_cli *cli, const char *name, const char *const *choices, int *out);
/* The same for a given text, such as one value of an option that repeats. */
mn_status mn_cli_choice_of(const char *name, const char *text, const char *const *choices, int *out);
/* What to compute in, by its word (base/precision.h): f32, which an absent option means, or bf16; with `f64` that, too. */
mn_status mn_cli_precision(const mn_cli *cli, const char *name, bool f64, mn_dtype *out);
/* An option that would have no effect is a mistake: refuses the options `names` (words, one space between) when one was given
 * and `applies` is false. "--seq-len has no effect here: it is for WHAT". */
mn_status mn_cli_only(const mn_cli *cli, bool applies, const char *what, const char *names);

/* ---- writing ------------------------------------------------------------------------------------------------------ */
mn_status mn_cli_json(mn_cli *cli, json_t *document); /* one document, indented; takes the reference                   */
void mn_cli_json_line(mn_cli *cli, json_t *record);   /* one line of a JSON-lines stream; takes the reference          */
json_t *mn_cli_text(const char *s);                   /* a JSON string of any bytes: U+FFFD for what is not UTF-8; NULL: null */
json_t *mn_cli_bytes(const char *s, size_t n);
/* printf to standard output, the only way that verbs write text: what %s fills in is shown with its control characters as
 * \x1b, so that no name and no message steers the terminal. A write that fails asks the verb to stop. Conversions: those of
 * d i u x c s e f g with l, ll and z. */
void mn_print(const char *fmt, ...) MN_PRINTF(1, 2);
void mn_print_bytes(const void *data, size_t n);   /* as they are: pictures with colours, generated files */
void mn_print_model_text(const char *s, size_t n); /* as it is; on a terminal, shown */
void mn_print_flush(void);
/* The text as it is shown, for a picture's labels; in the arena, NULL when out of memory. */
const char *mn_cli_shown(mn_arena *arena, const char *s);
json_t *mn_cli_number(double x); /* a JSON number, or null for NaN and infinities                 */
void mn_cli_note(const mn_cli *cli, const char *fmt, ...) MN_PRINTF(2, 3); /* a remark to stderr                       */
bool mn_cli_color(FILE *stream);  /* a terminal that takes colours, and NO_COLOR is not set                            */
int mn_cli_columns(FILE *stream); /* its width, or 80                                                                 */

/* ---- interruption ------------------------------------------------------------------------------------------------- */
bool mn_cli_interrupted(void);
void mn_cli_is_child(void);               /* of a process that hands signals on, and says so itself */
const atomic_int *mn_cli_stop_flag(void); /* non-zero once interrupted; for loops inside the library */

/* Of a verb that somebody talks with: from begin to end the first SIGINT asks only what runs there to stop; then mn_cli_interrupted() is true
 * until the end, which says so and takes it back. All else ends the verb as always. */
void mn_cli_part_begin(void);
bool mn_cli_part_end(void);

/* For the frame. mn_print_end: what became of standard output; a reader that left is no fault. */
void mn_print_begin(void);
mn_status mn_print_end(bool *reader_left);
void mn_print_error(const char *message);
mn_status mn_print_json(json_t *value, size_t flags); /* takes the reference */
void mn_cli_ask_to_stop(void);                        /* as a signal does */

/* ---- the frame itself --------------------------------------------------------------------------------------------- */
int mn_cli_main(int argc, char **argv, const mn_verb *const *verbs, int n_verbs); /* returns the exit code             */
extern const mn_option mn_cli_common_options[]; /* all of them; mn_cli_accepts says which a verb takes                 */
bool mn_cli_accepts(const mn_verb *verb, const mn_option *common);
void mn_cli_print_verbs(FILE *out, const mn_verb *const *verbs, int n_verbs);
void mn_cli_print_verb(FILE *out, const mn_verb *verb);
void mn_cli_print_version(FILE *out, bool json);

#endif
