/* What must be true of the house, as docs/architecture.md describes it: floors look downwards only, a room has one subject and so is
 * not long, scripts say how they are used, and what a document names is there. */
#define _GNU_SOURCE
#include <ctype.h>
#include <glob.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "test.h"

#define SOURCE MN_TEST_SOURCE_DIR "/"
enum { MOST_FLOORS = 32, MOST_LINES = 650 };

static char *read_all(const char *path) {
  char *text = NULL;
  size_t n;
  CHECK_OK(mn_file_read(path, 1 << 24, &text, &n));
  return text;
}

static glob_t files(const char *const *patterns, int n) {
  glob_t found = {0};
  for (int i = 0; i < n; i++) {
    char path[400];
    snprintf(path, sizeof path, SOURCE "%s", patterns[i]);
    glob(path, i ? GLOB_APPEND : 0, NULL, &found);
  }
  return found;
}

static bool of_a_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* ---- floors ---- */

static char floors[MOST_FLOORS][32]; /* from the ground up */
static int n_floors;

static int floor_of(const char *name, size_t n) {
  for (int i = 0; i < n_floors; i++)
    if (strlen(floors[i]) == n && !strncmp(floors[i], name, n)) return i;
  return -1;
}

/* The order is the document's table: `src/NAME` in each row's second cell. */
static void read_the_plan(void) {
  char *text = read_all(SOURCE "docs/architecture.md");
  for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n")) {
    char *cell = line[0] == '|' ? strchr(line + 1, '|') : NULL, *end = cell ? strchr(cell + 1, '|') : NULL;
    if (!end) continue;
    *end = 0;
    for (char *at = cell; (at = strstr(at, "`src/")) && n_floors < MOST_FLOORS; n_floors++) {
      at += 5;
      snprintf(floors[n_floors], sizeof floors[0], "%.*s", (int)strspn(at, "abcdefghijklmnopqrstuvwxyz"), at);
    }
  }
  free(text);
}

static void every_folder_is_a_floor(void) {
  const char *pattern = "src/*";
  glob_t found = files(&pattern, 1);
  CHECK(n_floors >= 10 && (int)found.gl_pathc == n_floors, "%zu folders, %d floors in the plan", found.gl_pathc, n_floors);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *name = strrchr(found.gl_pathv[i], '/') + 1;
    CHECK(floor_of(name, strlen(name)) >= 0, "docs/architecture.md has no floor src/%s", name);
  }
  globfree(&found);
}

static void a_floor_knows_those_below_it(void) {
  static const char *const patterns[] = {"src/*/*.[ch]", "src/*/*/*.[ch]", "src/*/*/*/*.[ch]"};
  glob_t found = files(patterns, 3);
  int looks = 0;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *room = found.gl_pathv[i] + sizeof SOURCE - 1 + 4;
    int own = floor_of(room, strcspn(room, "/"));
    char *text = read_all(found.gl_pathv[i]);
    for (char *at = text; at && (at = strstr(at, "#include \"")); at += 10) {
      int other = floor_of(at + 10, strcspn(at + 10, "/\""));
      looks += other >= 0;
      CHECK(other <= own, "src/%s: looks up to %.*s", room, (int)strcspn(at + 10, "\""), at + 10);
    }
    free(text);
  }
  CHECK(found.gl_pathc > 200 && looks > 500, "%zu rooms, %d looks", found.gl_pathc, looks);
  globfree(&found);
}

static void a_room_has_one_subject(void) {
  static const char *const patterns[] = {"src/*/*.[ch]", "src/*/*/*.[ch]", "src/*/*/*/*.[ch]", "include/*.h", "tests/*.[ch]", "bench/*.c"};
  glob_t found = files(patterns, 6);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = read_all(found.gl_pathv[i]);
    int lines = 0;
    for (const char *c = text; c && *c; c++) lines += *c == '\n';
    CHECK(lines <= MOST_LINES, "%s has %d lines: more than one subject?", found.gl_pathv[i] + sizeof SOURCE - 1, lines);
    free(text);
  }
  globfree(&found);
}

/* What stands around a plan (graph and scope, states, what is assigned) is a program's alone; the compiler's floor has plans in plans. */
static void only_programs_make_plans(void) {
  static const char *const patterns[] = {"src/*/*.c", "src/*/*/*.c", "src/*/*/*/*.c"};
  glob_t found = files(patterns, 3);
  int programs = 0;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *room = found.gl_pathv[i] + sizeof SOURCE "src/" - 1;
    const bool program = !strncmp(room, "run/", 4);
    char *text = read_all(found.gl_pathv[i]);
    const bool makes = text && strstr(text, "mn_plan_compile(");
    programs += program && makes;
    CHECK(!makes || program || !strncmp(room, "compile/", 8), "src/%s compiles by itself: let it give mn_program_new a builder", room);
    free(text);
  }
  CHECK(programs == 1, "%d rooms of src/run compile", programs);
  globfree(&found);
}

/* Passes ask an operation for its traits (graph.h, mn_is), never which one it is. */
static void passes_ask_for_traits(void) {
  static const char *const patterns[] = {"src/compile/*.[ch]"};
  glob_t found = files(patterns, 1);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = read_all(found.gl_pathv[i]);
    const char *asks = text ? strstr(text, "= &mn_op_") : NULL;
    for (; asks && !(asks[-1] == '=' || asks[-1] == '!'); asks = strstr(asks + 1, "= &mn_op_")) {
    }
    CHECK(text && !asks, "%s asks which operation it is: %.40s", found.gl_pathv[i] + sizeof SOURCE - 1, asks ? asks - 1 : "");
    free(text);
  }
  CHECK(found.gl_pathc > 20, "%zu files", found.gl_pathc);
  globfree(&found);
}

/* A test's stream is run by a program too, as a user's is: a hand that bound states itself would show that the hand is right. The three
 * that are left look at the graph's own states and plans, which programs hide. */
static void streams_of_tests_are_run_by_programs(void) {
  static const char *const patterns[] = {"tests/*.[ch]"}, *const own[] = {"test_scope.c", "test_carried.c", "test_prologue.c",
                                                                          "test_house.c"};
  glob_t found = files(patterns, 1);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *name = strrchr(found.gl_pathv[i], '/') + 1;
    bool may = false;
    for (size_t k = 0; k < sizeof own / sizeof *own; k++) may = may || !strcmp(name, own[k]);
    char *text = read_all(found.gl_pathv[i]);
    const bool binds = text && strstr(text, "mn_plan_compile(") && strstr(text, "mn_scope_states(") && strstr(text, "].leaf");
    CHECK(may || !binds, "tests/%s binds the states of a stream by itself: use trial.h, or a program", name);
    free(text);
  }
  CHECK(found.gl_pathc > 80, "%zu tests", found.gl_pathc);
  globfree(&found);
}

/* A test runs beside others, and beside itself on another instruction set: what it writes is its own (scratch.h, a folder by mkdtemp). In
 * the folder of the build it names programs, and patterns of names, alone. */
static void tests_write_where_no_other_does(void) {
  static const char *const patterns[] = {"tests/*.[ch]"}, *const programs[] = {"mneme", "example-", "api-cpp"};
  const char *const build = "MN_TEST_BINARY_DIR "
                            "\"/";
  glob_t found = files(patterns, 1);
  int named = 0;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = read_all(found.gl_pathv[i]);
    for (const char *at = text; at && (at = strstr(at, build)); named++) {
      at += strlen(build);
      const size_t length = strcspn(at, "\"\n");
      bool may = length > 6 && !strncmp(at + length - 6, "XXXXXX", 6);
      for (size_t k = 0; k < sizeof programs / sizeof *programs; k++) may = may || !strncmp(at, programs[k], strlen(programs[k]));
      CHECK(may, "%s writes %.*s in the folder of the build, where another run may write too: include scratch.h", found.gl_pathv[i],
            (int)length, at);
    }
    free(text);
  }
  CHECK(named > 5, "%d names in the folder of the build", named);
  globfree(&found);
}

/* src/memory/NAME.c or src/memory/NAME/: one of the types that stand there begins with NAME. */
static void a_system_is_found_by_its_name(void) {
  static const char *const patterns[] = {"src/memory/*.c", "src/memory/*/*.c"};
  const char *const row = "\nconst mn_mixer_def mn_mixer_";
  glob_t found = files(patterns, 2);
  int systems = 0;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *room = found.gl_pathv[i] + sizeof SOURCE "src/memory/" - 1;
    char *text = read_all(found.gl_pathv[i]);
    bool any = false, named = false;
    for (const char *at = text; at && (at = strstr(at, row)); any = true) {
      at += strlen(row);
      named = named || !strncmp(at, room, strcspn(room, "/."));
    }
    systems += any;
    CHECK(named || !any, "src/memory/%s has systems, and none of its name", room);
    free(text);
  }
  CHECK(systems > 10, "%d systems", systems);
  globfree(&found);
}

/* ---- what documents name ---- */

static mn_text sources;
static char *listing; /* "/name/of/file\n" for each */

static void read_the_sources(void) {
  static const char *const patterns[] = {"src/*/*.[ch]", "src/*/*/*.[ch]", "src/*/*/*/*.[ch]", "src/*/*.in",  "include/*.h",
                                         "tests/*.[ch]", "tests/*/*.[ch]", "bench/*.c",        "examples/*.c"};
  glob_t found = files(patterns, 9);
  mn_text names = {0};
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = read_all(found.gl_pathv[i]);
    if (text) mn_text_addf(&sources, "%s\n", text);
    mn_text_addf(&names, "/%s\n", found.gl_pathv[i] + sizeof SOURCE - 1);
    free(text);
  }
  globfree(&found);
  listing = names.data;
}

static bool in_sources(const char *word, size_t n) { /* as a word; "mn_cpu_" and the like begin one */
  for (const char *at = sources.data; (at = memmem(at, strlen(at), word, n)); at++)
    if (!of_a_word(at[-1]) && (word[n - 1] == '_' || !of_a_word(at[n]))) return true;
  return false;
}

static bool is_there(bool there, bool told, const char *where, int n, const char *name) {
  if (told) CHECK(there, "%s: there is no %.*s", where, n, name);
  return there;
}

/* How many names of the text are not there; told: each is a failure. */
static int missing_names(const char *where, const char *text, bool told) {
  int missing = 0;
  for (const char *at = text; *at; at++) {
    if (at > text && (of_a_word(at[-1]) || strchr("/.-<*", at[-1]))) continue; /* within a word or a path */
    size_t word = 0;
    while (of_a_word(at[word])) word++;
    if ((!strncmp(at, "mn_", 3) || !strncmp(at, "MN_", 3)) && word > 3 && at[word] != '<')
      missing += !is_there(in_sources(at, word), told, where, (int)word, at);
    size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./");
    while (n && strchr(".-/", at[n - 1])) n--;
    size_t open = strcspn(at + n, "*<{");
    if (!n || (open < 2 && at[n + open])) continue; /* a pattern, or its parts in braces */
    static const char *const roots[] = {"src/", "tests/", "docs/", "bench/", "include/", "recipes/", "scripts/", "examples/", NULL};
    bool rooted = false;
    for (int i = 0; roots[i]; i++) rooted = rooted || (n > strlen(roots[i]) && !strncmp(at, roots[i], strlen(roots[i])));
    char name[300];
    snprintf(name, sizeof name, "%.*s", (int)n, at);
    if (rooted && !strstr(name, "NAME")) {
      char path[800];
      struct stat st;
      snprintf(path, sizeof path, SOURCE "%s", name);
      missing += !is_there(stat(path, &st) == 0, told, where, (int)n, name);
    } else if (n > 2 && !strchr(name, '/') && (!strcmp(name + n - 2, ".c") || !strcmp(name + n - 2, ".h"))) {
      char line[310];
      snprintf(line, sizeof line, "/%s\n", name);
      missing += !is_there(strstr(listing, line) != NULL, told, where, (int)n, name);
    }
  }
  return missing;
}

static void documents_name_what_is_there(void) {
  static const char *const patterns[] = {"README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md", "tests/golden/README.md"};
  glob_t found = files(patterns, 5);
  CHECK(found.gl_pathc > 20, "%zu documents", found.gl_pathc);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char *text = read_all(found.gl_pathv[i]);
    if (text) missing_names(found.gl_pathv[i] + sizeof SOURCE - 1, text, true);
    free(text);
  }
  globfree(&found);
  CHECK(missing_names("",
                      "`mn_no_such"
                      "_thing` in no_such_room.c, docs/nothing.md",
                      false) == 3,
        "what is not there is found");
}

/* ---- scripts ---- */

/* --help comes before all else: before what a script needs is asked for, and before anything is done. */
static void scripts_say_how_they_are_used(void) {
  static const char *const patterns[] = {"bench/*", "bench/claims/*", "scripts/*"};
  glob_t found = files(patterns, 3);
  int scripts = 0;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *path = found.gl_pathv[i], *name = path + sizeof SOURCE - 1;
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || !(st.st_mode & S_IXUSR)) continue;
    for (int form = 0; form < 2; form++) {
      char command[900], usage[300], said[8192];
      snprintf(command, sizeof command, "MNEME=/nothing timeout 60 '%s' %s </dev/null 2>&1", path, form ? "-h" : "--help");
      snprintf(usage, sizeof usage, "usage: %s", name);
      FILE *f = popen(command, "r");
      const size_t n = f ? fread(said, 1, sizeof said - 1, f) : 0;
      said[n] = 0;
      const int status = f ? pclose(f) : -1;
      CHECK(status == 0 && strstr(said, usage), "%s: status %d, %.200s", command, status, said);
    }
    scripts++;
  }
  CHECK(scripts > 30, "%d scripts", scripts);
  globfree(&found);
}

int main(void) {
  read_the_plan();
  RUN(every_folder_is_a_floor);
  RUN(a_floor_knows_those_below_it);
  RUN(a_room_has_one_subject);
  RUN(only_programs_make_plans);
  RUN(passes_ask_for_traits);
  RUN(streams_of_tests_are_run_by_programs);
  RUN(tests_write_where_no_other_does);
  RUN(a_system_is_found_by_its_name);
  RUN(scripts_say_how_they_are_used);
  read_the_sources();
  RUN(documents_name_what_is_there);
  mn_text_free(&sources);
  free(listing);
  return test_end();
}
