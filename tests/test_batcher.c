/* test_batcher.c - what must be true of many streams at once, in order: each says what it would say alone, whoever is beside it; they
 * join and leave at any time; long prompts are read in pieces between the steps of others; the least served client goes first; whoever is
 * cancelled is let go; what is read for a while by a conversation counts as what is read without; every task ends once, whatever happens. Counts decide, never times. */
#include <pthread.h>
#include <semaphore.h>

#include "serve/batcher.h"
#include "model_fixture.h"
#include "serve/clients.h"
#include "serve/json_schema.h"

enum { MOST = 24, TOKENS = 64 };

typedef struct heard { /* of one task */
  mn_task task;
  int32_t prompt[400];
  int32_t tokens[4][TOKENS];
  double log_p[4][TOKENS];
  int n[4];
  mn_text text[4];
  mn_ending ending[4];
  mn_status status;
  int overs, order; /* how often it was over; it was so many tasks after which it was */
  int made_before;  /* tokens that all tasks had made when its first came */
} heard;

static fixture f;
static mn_tokenizer *bytes;
static heard all[MOST];
static sem_t over_sem, gate;
static int n_over, n_made;

static void told(void *ctx, int64_t answer, const mn_said *said, const char *text, size_t n) {
  heard *h = ctx;
  if (said && h->n[answer] < TOKENS) {
    if (!h->n[answer] && !answer) h->made_before = n_made;
    h->tokens[answer][h->n[answer]] = said->token;
    h->log_p[answer][h->n[answer]++] = said->log_p;
  }
  n_made += said != NULL;
  mn_text_add_bytes(&h->text[answer], text, n);
}
static void ended(void *ctx, int64_t answer, mn_ending why) { ((heard *)ctx)->ending[answer] = why; }
static void over(void *ctx, mn_status status, const char *why) {
  heard *h = ctx;
  if (status != MN_OK && status != MN_ERR_CANCELLED) printf("  %s\n", why);
  h->status = status, h->overs++, h->order = n_over++;
  sem_post(&over_sem);
}

static void wait_at_gate(void *arg) {
  (void)arg;
  sem_wait(&gate);
}

static heard *ask(int i, int n_prompt, int most, int64_t answers, uint64_t client) {
  heard *h = &all[i];
  for (int k = 0; k < 4; k++) mn_text_free(&h->text[k]);
  memset(h, 0, sizeof *h);
  for (int k = 0; k < n_prompt; k++) h->prompt[k] = (int32_t)((i * 37 + k * k * 11 + 5) % 250);
  h->task.prompt = h->prompt, h->task.n_prompt = n_prompt, h->task.answers = answers, h->task.client = client;
  h->task.manner.most = most, h->task.manner.top = 0;
  mn_config_defaults(mn_sampling_fields, &h->task.manner.sampling);
  h->task.manner.sampling.temperature = 1, h->task.manner.sampling.seed = 7 + i;
  h->task.told = told, h->task.ended = ended, h->task.over = over, h->task.ctx = h;
  return h;
}

static void post(mn_batcher *b, heard *h) {
  bool full;
  CHECK_OK(mn_batcher_post(b, &h->task, &full));
}
static void wait_for(int n) {
  while (n-- > 0) sem_wait(&over_sem);
}

static mn_batcher *begin(int64_t rows, int64_t piece) {
  mn_batcher *b = NULL;
  const mn_batcher_config c = {
      .model = f.model, .params = f.params, .tokenizer = bytes, .compute = MN_F32, .rows = rows, .piece = piece, .waiting = 100};
  n_over = n_made = 0;
  CHECK_OK(mn_batcher_new(&c, &b));
  return b;
}

static void open_model(void) {
  CHECK(fixture_open(
            &f, 3, "{vocab_size: 256, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 300}, hidden: 16}}"),
        "no model");
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &bytes));
  sem_init(&over_sem, 0, 0), sem_init(&gate, 0, 0);
}

/* Prompts of many lengths, one after the other, and then all at once, over pieces of every size: the same tokens, and the same
 * probabilities up to the order of sums. */
static void each_says_what_it_says_alone(void) {
  enum { N = 9 };
  static heard alone[N];
  mn_batcher *b = begin(1, 16);
  for (int i = 0; i < N && b; i++)
    post(b, ask(i, 1 + i * 13 % 70, 10 + 5 * i, 1, 1)), wait_for(1), alone[i] = all[i], memset(all[i].text, 0, sizeof all[i].text);
  mn_batcher_free(b);
  for (int64_t rows = 2; rows <= 16; rows = rows * 2 + 1) {
    int differ = 0, bits = 0;
    b = begin(rows, rows == 2 ? 7 : 16);
    for (int i = 0; i < N && b; i++) post(b, ask(i, 1 + i * 13 % 70, 10 + 5 * i, 1, 1));
    wait_for(N);
    for (int i = 0; i < N; i++) {
      const heard *x = &alone[i], *y = &all[i];
      CHECK(y->overs == 1 && y->status == MN_OK && y->n[0] == 10 + 5 * i && y->ending[0] == MN_END_LENGTH && y->task.made == y->n[0],
            "%lld rows, stream %d: %d tokens, %s", (long long)rows, i, y->n[0], mn_status_name(y->status));
      CHECK(!memcmp(x->tokens[0], y->tokens[0], sizeof x->tokens[0]) && x->text[0].len == y->text[0].len &&
                !memcmp(x->text[0].data, y->text[0].data, x->text[0].len),
            "%lld rows, stream %d", (long long)rows, i);
      for (int t = 0; t < y->n[0]; t++) {
        differ += fabs(x->log_p[0][t] - y->log_p[0][t]) > 1e-5 * (1 + fabs(x->log_p[0][t]));
        bits += x->log_p[0][t] != y->log_p[0][t];
      }
    }
    CHECK(differ == 0, "%lld rows: %d probabilities differ", (long long)rows, differ);
    if (bits) printf("  %lld rows: %d probabilities differ in their last bits\n", (long long)rows, bits);
    const mn_batcher_counts c = mn_batcher_count(b);
    CHECK(c.tokens_made == n_made && c.row_steps >= c.steps, "%lld made", (long long)c.tokens_made);
    mn_batcher_free(b);
  }
  for (int i = 0; i < N; i++) mn_text_free(&alone[i].text[0]);
}

static void answers_share_a_prompt(void) {
  mn_batcher *b = begin(8, 16);
  post(b, ask(0, 40, 12, 4, 1));
  wait_for(1);
  const mn_batcher_counts c = mn_batcher_count(b);
  CHECK(c.tokens_read == 40 && c.tokens_made == 48 && all[0].task.made == 48, "%lld read, %lld made", (long long)c.tokens_read,
        (long long)c.tokens_made);
  CHECK(memcmp(all[0].tokens[0], all[0].tokens[1], 12 * sizeof(int32_t)) != 0, "answers are drawn each for itself");
  static heard first;
  first = all[0];
  memset(all[0].text, 0, sizeof all[0].text);
  post(b, ask(0, 40, 12, 1, 1));
  wait_for(1);
  CHECK(!memcmp(first.tokens[0], all[0].tokens[0], 12 * sizeof(int32_t)), "the first of several is the only one");
  for (int k = 0; k < 4; k++) mn_text_free(&first.text[k]);
  bool full;
  ask(1, 4, 4, 9, 1);
  CHECK(mn_batcher_post(b, &all[1].task, &full) == MN_ERR_CONFIG && !full, "more answers than rows");
  post(b, ask(1, 20, 0, 2, 1)); /* nothing is made */
  wait_for(1);
  CHECK(all[1].status == MN_OK && all[1].ending[0] == MN_END_LENGTH && all[1].ending[1] == MN_END_LENGTH && all[1].task.made == 0, "%s",
        mn_status_name(all[1].status));
  mn_batcher_free(b);
}

/* A prompt of many pieces is read while others are answered: they make a token between its pieces. */
static void a_long_prompt_keeps_nobody_waiting(void) {
  mn_batcher *b = begin(4, 8);
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  post(b, ask(0, 3, 60, 1, 1));
  post(b, ask(1, 240, 4, 1, 1)); /* 30 pieces */
  post(b, ask(2, 3, 4, 1, 1));   /* short, of the same client, behind it */
  sem_post(&gate);
  wait_for(3);
  CHECK(all[2].order == 0, "the short prompt waited for the long one");
  CHECK(all[1].made_before >= 28, "only %d tokens were made while 30 pieces were read", all[1].made_before);
  CHECK(all[0].n[0] == 60 && all[1].n[0] == 4, "%d, %d", all[0].n[0], all[1].n[0]);
  mn_batcher_free(b);
}

/* One client asks ten times, then another once: he is second, not eleventh. Then both ask as often: they are served by turns. */
static void the_least_served_goes_first(void) {
  mn_batcher *b = begin(1, 16);
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 10; i++) post(b, ask(i, 10, 10, 1, 1));
  post(b, ask(10, 10, 10, 1, 2));
  sem_post(&gate);
  wait_for(11);
  CHECK(all[10].order == 1, "he was number %d", all[10].order);
  n_over = 0;
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 12; i++) post(b, ask(i, 10, 10, 1, i < 6 ? 1 : 2));
  sem_post(&gate);
  wait_for(12);
  int ahead = 0, most = 0, by_order[12];
  for (int i = 0; i < 12; i++) by_order[all[i].order] = i < 6 ? 1 : -1;
  for (int i = 0; i < 12; i++) ahead += by_order[i], most = abs(ahead) > most ? abs(ahead) : most;
  CHECK(most <= 1, "one client was %d tasks ahead", most);
  mn_batcher_free(b);
}

static void counters_forget_nobody(void) {
  mn_clients c = {0};
  CHECK_OK(mn_clients_begin(&c, 1));
  mn_clients_serve(&c, 1, 100);
  CHECK_OK(mn_clients_begin(&c, 2)); /* begins where the least served stands */
  CHECK(mn_clients_served(&c, 2) == 100, "%lld", (long long)mn_clients_served(&c, 2));
  mn_clients_serve(&c, 2, 50);
  mn_clients_end(&c, 2);
  mn_clients_serve(&c, 1, 10);
  CHECK_OK(mn_clients_begin(&c, 2)); /* who had more keeps it: leaving for a moment gives nothing */
  CHECK(mn_clients_served(&c, 2) == 150, "%lld", (long long)mn_clients_served(&c, 2));
  for (uint64_t id = 10; id < 5000; id++) CHECK(mn_clients_begin(&c, id) == MN_OK && (mn_clients_end(&c, id), true), "%d", (int)id);
  CHECK(c.n < 10, "%zu clients that want nothing are kept", c.n);
  mn_clients_end(&c, 1), mn_clients_end(&c, 2);
  CHECK_OK(mn_clients_begin(&c, 1)); /* nobody wanted anything: all begin anew */
  CHECK(mn_clients_served(&c, 1) == 0, "%lld", (long long)mn_clients_served(&c, 1));
  mn_clients_free(&c);
}

static void who_is_cancelled_is_let_go(void) {
  mn_batcher *b = begin(2, 8);
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 5; i++) post(b, ask(i, 20, i == 1 ? 20 : 200, 1, 1));
  mn_batcher_cancel(b, &all[0].task), mn_batcher_cancel(b, &all[4].task);
  sem_post(&gate);
  for (int k = 0; k < 2; k++) wait_for(1);
  CHECK(all[0].status == MN_ERR_CANCELLED && all[0].overs == 1 && !all[0].n[0] && all[4].overs == 1, "%s", mn_status_name(all[0].status));
  wait_for(1);
  CHECK(all[1].status == MN_OK && all[1].n[0] == 20, "%s", mn_status_name(all[1].status));
  mn_batcher_cancel(b, &all[2].task);
  wait_for(2);
  CHECK(all[2].overs == 1 && all[3].overs == 1, "%d, %d", all[2].overs, all[3].overs);
  bool full = false;
  int posted = 0;
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 3; i++) post(b, ask(i, 20, 200, 1, 1)), posted++;
  sem_post(&gate);
  mn_batcher_free(b); /* what is not over ends */
  wait_for(posted);
  for (int i = 0; i < 3; i++) CHECK(all[i].overs == 1, "task %d was over %d times", i, all[i].overs);
  (void)full;
}

static void what_waits_and_what_fits_is_limited(void) {
  mn_batcher *b = NULL;
  mn_batcher_config c = {.model = f.model, .params = f.params, .tokenizer = bytes, .compute = MN_F32, .rows = 64, .piece = 8, .waiting = 2};
  CHECK_OK(mn_batcher_new(&c, &b));
  const size_t one = mn_batcher_stream_bytes(b);
  bool full;
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  post(b, ask(0, 4, 4, 1, 1)), post(b, ask(1, 4, 4, 1, 1)), ask(2, 4, 4, 1, 1);
  CHECK(mn_batcher_post(b, &all[2].task, &full) == MN_ERR_MEMORY && full, "a third one");
  sem_post(&gate);
  wait_for(2);
  /* the context ends */
  post(b, ask(0, 290, 40, 1, 1));
  wait_for(1);
  CHECK(all[0].status == MN_OK && all[0].n[0] == 11 && all[0].ending[0] == MN_END_ROOM, "%d tokens, %d", all[0].n[0], all[0].ending[0]);
  CHECK(mn_batcher_context(b) == 300 && one > 0, "%lld", (long long)mn_batcher_context(b));
  mn_batcher_free(b);
  /* bytes of state are those in use: two prompts of 8 and 8 fit, each with its reader, and a third waits */
  mn_program *p = NULL;
  const mn_states *first = NULL;
  CHECK_OK(mn_session_program_new(f.model, f.params, MN_F32, false, &p));
  CHECK_OK(mn_program_first(p, &first));
  const size_t each = mn_states_bytes_at(first, 16) + mn_states_bytes_at(first, 8), least = 2 * mn_states_bytes_at(first, 1);
  CHECK(each < one, "%zu of %zu bytes", each, one);
  c.state_bytes = each * 2 + each / 2, c.waiting = 16;
  CHECK_OK(mn_batcher_new(&c, &b));
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 6; i++) post(b, ask(i, 8, 8, 1, 1));
  sem_post(&gate);
  wait_for(6);
  mn_batcher_counts seen = mn_batcher_count(b);
  CHECK(seen.steps_of[0] + seen.steps_of[1] == seen.steps && seen.steps_of[1] > 0, "never more than two at once: %lld of %lld steps",
        (long long)(seen.steps_of[0] + seen.steps_of[1]), (long long)seen.steps);
  for (int i = 0; i < 6; i++) CHECK(all[i].status == MN_OK && all[i].n[0] == 8, "%d: %d tokens", i, all[i].n[0]);
  post(b, ask(0, 8, 200, 1, 1)); /* alone it would be too much */
  wait_for(1);
  CHECK(all[0].status == MN_ERR_CONFIG && all[0].n[0] == 0, "%d", all[0].status);
  mn_batcher_free(b);
  mn_program_free(p);
  c.state_bytes = least - 1;
  CHECK(mn_batcher_new(&c, &b) == MN_ERR_CONFIG && strstr(mn_message(), "allow more"), "%s", mn_message());
}

/* ---- conversations that are lent ---- */
static mn_batcher *lender;
static mn_program *lent;
static size_t while_it_is_read;
static int64_t reading;

static void look_now(void *arg) { /* between two pieces of the prompt */
  const mn_batcher_counts c = mn_batcher_count(arg);
  while_it_is_read = c.state_bytes, reading = c.reading;
}

static mn_status lend(void *ctx, mn_conversation **out) {
  (void)ctx;
  const mn_session_config how = {.prefill = 8, .program = lent};
  MN_TRY(mn_batcher_call(lender, look_now, lender));
  return mn_conversation_new(f.model, f.params, &how, NULL, out);
}

static void take_back(void *ctx, mn_conversation *c, mn_status status) {
  (void)ctx, (void)status;
  mn_conversation_free(c);
}

static heard *borrower(int i, int n_prompt, int most) {
  heard *h = ask(i, n_prompt, most, 1, 1);
  h->task.take = lend, h->task.give = take_back, h->task.lends = true;
  return h;
}

static void what_is_lent_counts_too(void) {
  const mn_states *first = NULL;
  mn_batcher_config c = {
      .model = f.model, .params = f.params, .tokenizer = bytes, .compute = MN_F32, .rows = 64, .piece = 8, .waiting = 16};
  CHECK_OK(mn_batcher_new(&c, &lender));
  lent = mn_batcher_program(lender);
  CHECK_OK(mn_program_first(lent, &first));
  post(lender, borrower(0, 100, 4)), wait_for(1);
  CHECK(all[0].status == MN_OK && reading == 1 && while_it_is_read >= mn_states_bytes_at(first, 8), "%zu bytes while %lld is read",
        while_it_is_read, (long long)reading);
  const size_t answers = mn_states_bytes_at(first, 16), each = answers + mn_states_bytes_at(first, 8);
  mn_ids_free(&all[0].task.drawn);
  mn_batcher_free(lender);
  c.state_bytes = each * 2 + each / 4; /* two with what is read beside them; of three the answers alone */
  CHECK(3 * answers <= c.state_bytes, "%zu bytes", c.state_bytes);
  CHECK_OK(mn_batcher_new(&c, &lender));
  lent = mn_batcher_program(lender);
  CHECK_OK(mn_batcher_call(lender, wait_at_gate, NULL));
  for (int i = 0; i < 6; i++) post(lender, borrower(i, 8, 8));
  sem_post(&gate);
  wait_for(6);
  const mn_batcher_counts seen = mn_batcher_count(lender);
  CHECK(seen.steps_of[0] + seen.steps_of[1] == seen.steps && seen.steps_of[1] > 0, "never more than two at once: %lld of %lld steps",
        (long long)(seen.steps_of[0] + seen.steps_of[1]), (long long)seen.steps);
  for (int i = 0; i < 6; i++) CHECK(all[i].status == MN_OK && all[i].n[0] == 8, "%d: %d tokens", i, all[i].n[0]);
  mn_batcher_free(lender);
}

/* Every way of drawing at once, a voice each, and answers that share a machine: with any number of threads what one thread draws, to the bit. */
static const char *text_of(void *ctx, int32_t i, size_t *n) { return mn_tokenizer_token(ctx, i, n); }

static void ask_in_all_ways(mn_batcher *b, mn_machine *machine, const mn_lexicon *lexicon) {
  static const mn_bias bias[] = {{65, 4}, {66, -100}};
  CHECK_OK(mn_batcher_call(b, wait_at_gate, NULL));
  for (int i = 0; i < 7; i++) {
    heard *h = ask(i, 3 + 5 * i, 24, i == 4 ? 3 : 1, 1);
    mn_manner *m = &h->task.manner;
    if (i == 1) m->sampling.temperature = 0;
    if (i == 2) m->sampling.top_p = 0.9;
    if (i == 3) m->sampling.top_k = 5, m->presence_penalty = 1, m->frequency_penalty = 0.5;
    if (i == 4) m->machine = machine, m->lexicon = lexicon;
    if (i == 5) m->sampling.repetition_penalty = 1.3, m->bias = bias, m->n_bias = 2;
    if (i == 6) m->top = 3;
    post(b, h);
  }
  sem_post(&gate);
  wait_for(7);
}

static void threads_draw_what_one_draws(void) {
  enum { N = 7 };
  static heard one[N];
  static const int threads[] = {1, 2, 5};
  mn_grammar *g = NULL;
  mn_lexicon *lexicon = NULL;
  mn_pool *usual = f.backend->pool;
  CHECK_OK(mn_grammar_of_json(true, &g));
  CHECK_OK(mn_lexicon_new(256, text_of, bytes, &lexicon));
  for (int k = 0; k < 3 && g && lexicon; k++) {
    mn_machine *machine = NULL;
    mn_pool *pool = f.backend->pool = mn_pool_new(threads[k]);
    CHECK_OK(mn_machine_new(g, &machine));
    mn_batcher *b = begin(16, 16);
    ask_in_all_ways(b, machine, lexicon);
    mn_batcher_free(b);
    for (int i = 0; i < N; i++) {
      CHECK(all[i].status == MN_OK && all[i].n[0] > 0, "%d threads, way %d: %s", threads[k], i, mn_status_name(all[i].status));
      for (int a = 0; a < 4 && k > 0; a++)
        CHECK(all[i].n[a] == one[i].n[a] && !memcmp(all[i].tokens[a], one[i].tokens[a], sizeof one[i].tokens[a]) &&
                  !memcmp(all[i].log_p[a], one[i].log_p[a], sizeof one[i].log_p[a]) && all[i].ending[a] == one[i].ending[a],
              "%d threads, way %d, answer %d", threads[k], i, a);
      if (k == 0) one[i] = all[i];
    }
    mn_machine_free(machine);
    mn_pool_free(pool);
    f.backend->pool = usual;
    if (k == 0)
      for (int i = 0; i < N; i++) memset(all[i].text, 0, sizeof all[i].text);
  }
  for (int i = 0; i < N; i++)
    for (int a = 0; a < 4; a++) mn_text_free(&one[i].text[a]);
  mn_lexicon_free(lexicon);
  mn_grammar_free(g);
}

int main(void) {
  RUN(open_model);
  if (!test_failed) {
    RUN(each_says_what_it_says_alone);
    RUN(answers_share_a_prompt);
    RUN(threads_draw_what_one_draws);
    RUN(a_long_prompt_keeps_nobody_waiting);
    RUN(the_least_served_goes_first);
    RUN(counters_forget_nobody);
    RUN(who_is_cancelled_is_let_go);
    RUN(what_waits_and_what_fits_is_limited);
    RUN(what_is_lent_counts_too);
  }
  for (int i = 0; i < MOST; i++)
    for (int k = 0; k < 4; k++) mn_text_free(&all[i].text[k]);
  mn_tokenizer_free(bytes);
  fixture_close(&f);
  return test_end();
}
