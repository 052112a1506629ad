import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

host, port = sys.argv[1], int(sys.argv[2])


def client(**options):
    return redis.Redis(host, port, decode_responses=True, **options)


def ask(who, *words):
    return who.execute_command("NEAP.ACQUIRE", "one", *words)


a, b = client(), client()
print("ping", a.ping())
word, lease = ask(a)[:2]
print("first", word)
answer = ask(b, "BLOCK", 50)
print("second", answer[0], answer[4])

granted = []
waiter = threading.Thread(target=lambda: granted.append(ask(b, "BLOCK", 5000)))
waiter.start()
while a.execute_command("NEAP.SNAPSHOT", "one")[3] != 1:
    pass
print("release", a.execute_command("NEAP.RELEASE", lease, "OK"))
waiter.join()
print("third", granted[0][0])

impatient = client(socket_timeout=0.2, retry=Retry(NoBackoff(), 0))   # newer ones ask again
try:
    ask(impatient, "BLOCK", 2000, "ID", "job-1")
except redis.exceptions.TimeoutError:
    print("time-out")
a.execute_command("NEAP.RELEASE", granted[0][1], "OK")
fourth = ask(impatient, "ID", "job-1")
fifth = ask(impatient, "ID", "job-1")
print("fourth", fourth[0], "same" if fourth[1] == fifth[1] else "another")
print("release", a.execute_command("NEAP.RELEASE", fourth[1], "FAIL"))
print("release", a.execute_command("NEAP.RELEASE", fourth[1], "FAIL"))

ears = client().pubsub()
ears.psubscribe("neap:*")
ears.get_message(timeout=10)   # that it does
a.execute_command("NEAP.REPORT", "frail", "FAIL")
for message in ears.listen():
    if message["channel"] == "neap:frail:open":
        print("heard", message["channel"])
        break
