--- What the command line takes from the C library and from hiredis: their declarations.
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
char *strerror(int number);
extern char **environ;

struct neap_timeval { long sec, usec; };
struct neap_hiredis { int err; char errstr[128]; int fd; };
struct neap_hiredis *redisConnectWithTimeout(const char *host, int port, struct neap_timeval tv);
struct neap_hiredis *redisConnectUnixWithTimeout(const char *path, struct neap_timeval tv);
void *redisCommandArgv(struct neap_hiredis *c, int argc, const char **argv, const size_t *size);
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
]]

return ffi.C
