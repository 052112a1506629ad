--- What the command line takes from the C library, from hiredis and from libedit: their
--- declarations.
local ffi = require "ffi"

ffi.cdef [[
ssize_t read(int fd, void *buffer, size_t size);
int fcntl(int fd, int command, ...);
int ioctl(int fd, unsigned long request, ...);
enum { TIOCGWINSZ = 0x5413 };
int setenv(const char *name, const char *value, int overwrite);

typedef struct { unsigned long bits[16]; } neap_sigset;
typedef struct { int number, error, code; char rest[116]; } neap_siginfo;
int sigemptyset(neap_sigset *set);
int sigaddset(neap_sigset *set, int number);
int sigprocmask(int how, const neap_sigset *set, neap_sigset *old);
int sigwaitinfo(const neap_sigset *set, neap_siginfo *info);
int posix_spawnattr_init(void *attributes);
int posix_spawnattr_setflags(void *attributes, short flags);
int posix_spawnattr_setsigmask(void *attributes, const neap_sigset *set);
int posix_spawnp(int *pid, const char *file, const void *actions, const void *attributes,
		 const char *const *argv, char *const *environment);
int waitpid(int pid, int *status, int options);
int kill(int pid, int number);
int getpid(void);
char *strerror(int number);
extern char **environ;

struct neap_timeval { long sec, usec; };
struct neap_hiredis { int err; char errstr[128]; int fd; };
struct neap_hiredis *redisConnectWithTimeout(const char *host, int port, struct neap_timeval tv);
struct neap_hiredis *redisConnectUnixWithTimeout(const char *path, struct neap_timeval tv);
void *redisCommandArgv(struct neap_hiredis *c, int argc, const char **argv, const size_t *size);
int redisBufferRead(struct neap_hiredis *c);
int redisGetReplyFromReader(struct neap_hiredis *c, void **reply);
void freeReplyObject(void *reply);
void redisFree(struct neap_hiredis *c);

struct neap_hiredis_reply_0 {
	int type; long long integer; size_t size; char *text;
	size_t count; struct neap_hiredis_reply_0 **element;
};
struct neap_hiredis_reply_1 {
	int type; long long integer; double number; size_t size; char *text; char kind[4];
	size_t count; struct neap_hiredis_reply_1 **element;
};

int isatty(int fd);
int pipe(int ends[2]);
int fork(void);
long sysconf(int name);
void _exit(int status);
int open(const char *path, int flags, ...);
int fchmod(int fd, unsigned mode);
int mkdir(const char *path, unsigned mode);
ssize_t write(int fd, const void *bytes, size_t size);
int close(int fd);
int dup2(int fd, int to);
int ioctl(int fd, unsigned long request, ...);
char *setlocale(int category, const char *locale);
int signalfd(int fd, const neap_sigset *set, int flags);
struct neap_pollfd { int fd; short events, revents; };
int poll(struct neap_pollfd *list, unsigned long count, int timeout_ms);
struct neap_winsize { unsigned short rows, columns, width, height; };

typedef struct neap_editor neap_editor;
typedef struct neap_history neap_history;
struct neap_history_event { int number; const char *text; };
struct neap_edited { const char *begin, *cursor, *last; };
typedef char *(*neap_prompt_fn)(neap_editor *e);
typedef unsigned char (*neap_key_fn)(neap_editor *e, int key);
typedef int (*neap_getc_fn)(neap_editor *e, wchar_t *key);
neap_editor *el_init(const char *program, void *in, void *out, void *err);
void el_end(neap_editor *e);
const char *el_gets(neap_editor *e, int *count);
int el_set(neap_editor *e, int what, ...);
void el_resize(neap_editor *e);
const struct neap_edited *el_line(neap_editor *e);
int el_insertstr(neap_editor *e, const char *text);
neap_history *history_init(void);
void history_end(neap_history *h);
int history(neap_history *h, struct neap_history_event *event, int what, ...);
]]

return ffi.C
