/* The matcher of patterns: what it remembers changes no match, no search costs more than in proportion to its text, and what does all
 * the same is told. */
#include <signal.h>

#include "format/regex.h"
#include "format/tokenizer.h"
#include "test.h"

static uint64_t at_random;
static uint32_t draw(uint32_t n) { return (uint32_t)((at_random = mn_splitmix64(at_random + 1)) >> 33) % n; }

static mn_regex *compiled(const char *pattern) {
  mn_regex *re = NULL;
  CHECK_OK(mn_regex_compile("t.json", pattern, strlen(pattern), false, &re));
  return re;
}

/* All matches, as "begin-end " each; the steps that they took. */
static uint64_t matches(const mn_regex *re, const char *text, size_t n, bool careful, bool remember, char *out, size_t room) {
  mn_matcher m = {.careful = careful};
  uint64_t steps = 0;
  size_t said = 0;
  for (size_t at = 0, begin, end; at < n; at = end) {
    m.same_text = remember && at > 0;
    const mn_status status = mn_matcher_next(&m, re, text, n, at, &begin, &end);
    CHECK(status == MN_OK, "%s", mn_message());
    if (status != MN_OK) break;
    steps += m.work;
    if (out && said + 48 < room) said += (size_t)snprintf(out + said, room - said, "%zu-%zu ", begin, end);
  }
  mn_matcher_close(&m);
  return steps;
}

/* ---- a pattern drawn at random ---- */
static void draw_pattern(char *out, int depth) {
  static const char *const atoms[] = {"a", "b", "[ab]", ".", "\\w", "\xC3\xA9", "a+", "b*", "[^a]", "\\s"};
  static const char *const counts[] = {"", "", "", "?", "+", "*", "{1,2}", "{2,}", "+?", "*?", "??", "++", "{0,3}"};
  static const char *const around[] = {"(?:", "(?:", "(?>", "(?=", "(?!", "(?<=b", "(?<!a"};
  const uint32_t kind = depth ? draw(6) : 0;
  char part[2][400] = {"", ""};
  if (kind < 2) {
    const char *atom = atoms[draw(10)];
    const char *count = counts[draw(13)];
    sprintf(out, "%s%s", atom, strchr("+*", atom[1] ? atom[strlen(atom) - 1] : 'x') ? "" : count);
    return;
  }
  draw_pattern(part[0], depth - 1);
  draw_pattern(part[1], depth - 1);
  if (kind == 2) sprintf(out, "(?:%s|%s)", part[0], part[1]);
  else if (kind == 3 || kind == 4) sprintf(out, "%s%s", part[0], part[1]);
  else if (draw(2)) sprintf(out, "(?:%s%s)%s", part[0], part[1], counts[draw(13)]);
  else {
    const uint32_t which = draw(7);
    sprintf(out, "%s%s)%s", around[which], which < 5 ? part[0] : "", part[1]);
  }
}

static void what_is_remembered_changes_no_match(void) {
  static const char *const signs[] = {"a", "a", "a", "b", "b", "c", " ", "\n", "\xC3\xA9"};
  char pattern[4000], text[120], plain[4000], careful[4000], again[4000];
  int looked_at = 0;
  at_random = 7;
  for (int k = 0; k < 8000; k++) {
    mn_regex *re = NULL;
    draw_pattern(pattern, 3);
    if (mn_regex_compile("t", pattern, strlen(pattern), false, &re) != MN_OK) continue; /* groups that can be empty, above all */
    looked_at++;
    *text = 0;
    for (uint32_t i = draw(25) + 1; i > 0; i--) strcat(text, signs[draw(9)]);
    *plain = *careful = *again = 0;
    matches(re, text, strlen(text), false, false, plain, sizeof plain);
    matches(re, text, strlen(text), true, false, careful, sizeof careful);
    matches(re, text, strlen(text), true, true, again, sizeof again);
    CHECK(!strcmp(plain, careful), "'%s' in '%s': %s, remembering %s", pattern, text, plain, careful);
    CHECK(!strcmp(plain, again), "'%s' in '%s': %s, remembering over matches %s", pattern, text, plain, again);
    mn_regex_free(re);
  }
  CHECK(looked_at > 2000, "only %d patterns", looked_at);
}

/* ---- cost ---- */
static char *repeated(const char *unit, size_t times, const char *tail, size_t *n) {
  const size_t len = strlen(unit);
  char *text = malloc(len * times + strlen(tail) + 1);
  for (size_t i = 0; i < times; i++) memcpy(text + i * len, unit, len);
  strcpy(text + len * times, tail);
  *n = len * times + strlen(tail);
  return text;
}

#define O200K_WORD "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_HEAD "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
static const struct {
  const char *pattern, *unit, *tail;
} costly[] = {{"(a+)+b|.", "a", "c"},
              {"(a|aa)+$", "a", "c"},
              {"(x+x+)+y", "x", ""},
              {"(?:a?){30}a{30}", "a", ""},
              {"\\p{L}+(?=.*z)", "a", "c"},
              {"(?i:a)+?b", "a", "c"},
              {"(?:a+?)+?b", "a", "c"},
              {"(?:(?=a*x)a|a)+b", "a", "c"},
              {"(?:a|[ab])+?(?:c|d)", "ab", "e"},
              {"\\s*[\\r\\n]+|\\S", " ", "x"},
              {"a*+b", "a", "c"},
              {"[^\\r\\n\\p{L}\\p{N}]?" O200K_HEAD "*" O200K_WORD "+(?i:'s|'t)?|[^\\r\\n\\p{L}\\p{N}]?" O200K_HEAD "+" O200K_WORD
               "*(?i:'s|'t)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
               "TAC", ""}};

static void no_search_costs_more_than_its_text(void) {
  for (size_t k = 0; k < sizeof costly / sizeof *costly; k++) {
    mn_regex *re = compiled(costly[k].pattern);
    uint64_t steps[2];
    for (int i = 0; i < 2; i++) {
      size_t n;
      char *text = repeated(costly[k].unit, i ? 60000 : 20000, costly[k].tail, &n);
      steps[i] = matches(re, text, n, false, true, NULL, 0);
      free(text);
    }
    CHECK(steps[1] < 4 * steps[0] + 100000 && steps[0] < 20000ull * 64 * strlen(costly[k].unit),
          "'%s': %llu steps, in three times the text %llu", costly[k].pattern, (unsigned long long)steps[0], (unsigned long long)steps[1]);
    mn_regex_free(re);
  }
}

static void long_searches_find_what_short_ones_do(void) {
  static const struct {
    const char *pattern, *unit, *tail;
    size_t begin, end; /* of the first match, in a text of 30000 units */
  } want[] = {{"(a+)+b|.", "a", "c", 0, 1},
              {"(a+)+b|.", "a", "b", 0, 30001},
              {"(a|aa)+$", "a", "", 0, 30000},
              {"(?i:a)+?b", "A", "b", 0, 30001},
              {"(?:a+?)+?b", "a", "ab", 0, 30002},
              {"[A-Z]*[a-z]+", "TAC", "xTA", 0, 90001},
              {"\\p{L}+(?=.*z)", "a", "-z", 0, 30000},
              {"(?:a|[ab])+?(?:c|d)", "ab", "d", 0, 60001},
              {"(?<=b)c|(a+a+)+d", "a", "bc", 30001, 30002}};
  for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
    size_t n, begin, end;
    mn_regex *re = compiled(want[k].pattern);
    char *text = repeated(want[k].unit, 30000, want[k].tail, &n);
    mn_matcher m = {0};
    CHECK_OK(mn_matcher_next(&m, re, text, n, 0, &begin, &end));
    CHECK(begin == want[k].begin && end == want[k].end, "'%s': %zu to %zu", want[k].pattern, begin, end);
    mn_matcher_close(&m);
    free(text);
    mn_regex_free(re);
  }
}

static void what_costs_too_much_is_an_error(void) {
  size_t n, begin, end;
  mn_regex *re = compiled("(?:a{1,400}){1,400}b|.");
  char *text = repeated("a", 20000, "c", &n);
  mn_matcher m = {0};
  const mn_status status = mn_matcher_next(&m, re, text, n, 0, &begin, &end);
  CHECK(status == MN_ERR_UNSUPPORTED, "%s", mn_status_name(status));
  CHECK(strstr(mn_message(), "t.json") && strstr(mn_message(), "'(?:a{1,400}){1,400}b|.'") && strstr(mn_message(), "byte 0 of"), "%s",
        mn_message());
  mn_matcher_close(&m);
  free(text);
  mn_regex_free(re);
}

/* Each way from a text to tokens tells it, and none gives other tokens. */
static void tokenizers_hand_the_error_on(void) {
  static const char *const files[] = {
      "{\"version\": \"1.0\", \"model\": {\"type\": \"WordLevel\", \"vocab\": {\"[UNK]\": 0, \"a\": 1}, \"unk_token\": \"[UNK]\"},"
      "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?:a{1,400}){1,400}b|.\"}, \"behavior\": \"Isolated\","
      "\"invert\": false}}",
      "{\"version\": \"1.0\", \"model\": {\"type\": \"WordLevel\", \"vocab\": {\"[UNK]\": 0, \"a\": 1}, \"unk_token\": \"[UNK]\"},"
      "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(?:a{1,400}){1,400}b\"}, \"content\": \"a\"}}"};
  size_t n;
  char *text = repeated("a", 20000, "c", &n);
  for (size_t k = 0; k < 2; k++) {
    mn_tokenizer *tok = NULL;
    mn_encoder *enc = NULL;
    mn_ids ids = {0};
    CHECK_OK(mn_tokenizer_parse("t.json", files[k], strlen(files[k]), &tok));
    if (!tok) continue;
    mn_status status = mn_tokenizer_encode(tok, text, n, 0, &ids);
    CHECK(status == MN_ERR_UNSUPPORTED && strstr(mn_message(), "t.json: the pattern '(?:a{1,400}"), "%s", mn_message());
    CHECK_OK(mn_encoder_new(tok, &enc));
    status = mn_encoder_push(enc, text, n, 0, &ids);
    if (status == MN_OK) status = mn_encoder_finish(enc, 0, &ids);
    CHECK(status == MN_ERR_UNSUPPORTED && !ids.len, "%s, %zu ids", mn_message(), ids.len);
    CHECK_OK(mn_encoder_add(enc, "a", 1, 0, &ids)); /* and the encoder is as it was */
    CHECK(ids.len == 1 && ids.data[0] == 1, "%zu ids", ids.len);
    mn_encoder_free(enc);
    mn_ids_free(&ids);
    mn_tokenizer_free(tok);
  }
  free(text);
}

static void a_search_can_be_interrupted(void) {
  atomic_int stop = 1;
  size_t n, begin, end;
  mn_regex *re = compiled("(a+)+b");
  char *text = repeated("a", 20000, "c", &n);
  mn_matcher m = {0};
  mn_stop_watch(&stop);
  const mn_status status = mn_matcher_next(&m, re, text, n, 0, &begin, &end);
  mn_stop_watch(NULL);
  CHECK(status == MN_ERR_CANCELLED, "%s", mn_status_name(status));
  CHECK_OK(mn_matcher_next(&m, re, text, n, 0, &begin, &end)); /* and used again */
  CHECK(begin == n, "%zu", begin);
  mn_matcher_close(&m);
  free(text);
  mn_regex_free(re);
}

static void alternatives_after_what_may_be_left_out(void) {
  mn_regex *re = compiled("(?:a+b)?(?:c|d|cc)");
  char said[200] = "";
  matches(re, "aabd aac cc", 11, false, false, said, sizeof said);
  CHECK(!strcmp(said, "0-4 7-8 9-10 10-11 "), "%s", said);
  mn_regex_free(re);
}

/* Alone, behind a backslash, in a class: it ends no pattern, and is none of the signs that mean something. */
static void a_zero_byte_is_a_character(void) {
  static const struct {
    const char *pattern;
    size_t n;
  } all[] = {{"a\0b", 3}, {"a\\\0b", 4}, {"a[\0]b", 5}, {"a\0+b", 4}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_regex *re = NULL;
    char found[100] = "";
    CHECK(mn_regex_compile("t.json", all[i].pattern, all[i].n, false, &re) == MN_OK, "%zu: %s", i, mn_message());
    if (re) matches(re, "a\0b xa\0b", 8, true, false, found, sizeof found);
    CHECK(!strcmp(found, "0-3 5-8 "), "%zu: %s", i, found);
    mn_regex_free(re);
  }
}

int main(void) {
  RUN(what_is_remembered_changes_no_match);
  RUN(no_search_costs_more_than_its_text);
  RUN(long_searches_find_what_short_ones_do);
  RUN(what_costs_too_much_is_an_error);
  RUN(tokenizers_hand_the_error_on);
  RUN(a_search_can_be_interrupted);
  RUN(alternatives_after_what_may_be_left_out);
  RUN(a_zero_byte_is_a_character);
  return test_end();
}
