use redis::{Client, Connection, Value};
use std::{env, thread, time::Duration};

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

fn ask(who: &mut Connection, words: &[&str]) -> redis::RedisResult<Vec<Value>> {
    redis::cmd("NEAP.ACQUIRE").arg("one").arg(words).query(who)
}

fn release(who: &mut Connection, lease: &Value, how: &str) -> i64 {
    redis::cmd("NEAP.RELEASE").arg(text(lease)).arg(how).query(who).unwrap()
}

fn waiting(who: &mut Connection) -> bool {
    let look: Vec<Value> = redis::cmd("NEAP.SNAPSHOT").arg("one").query(who).unwrap();
    look[3] == Value::Int(1)
}

fn main() {
    let words: Vec<String> = env::args().collect();
    let client = Client::open(format!("redis://{}:{}/", words[1], words[2])).unwrap();
    let mut a = client.get_connection().unwrap();
    let mut b = client.get_connection().unwrap();
    println!("ping {}", redis::cmd("PING").query::<String>(&mut a).unwrap());
    let first = ask(&mut a, &[]).unwrap();
    println!("first {}", text(&first[0]));
    let second = ask(&mut b, &["BLOCK", "50"]).unwrap();
    println!("second {} {}", text(&second[0]), text(&second[4]));

    let waiter = thread::spawn(move || (ask(&mut b, &["BLOCK", "5000"]).unwrap(), b));
    while !waiting(&mut a) {}
    println!("release {}", release(&mut a, &first[1], "OK"));
    let (third, mut b) = waiter.join().unwrap();
    println!("third {}", text(&third[0]));

    let mut c = client.get_connection().unwrap();
    c.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    if ask(&mut c, &["BLOCK", "2000", "ID", "job-1"]).is_err() {
        println!("time-out");
    }
    release(&mut a, &third[1], "OK");
    let fourth = ask(&mut b, &["BLOCK", "2000", "ID", "job-1"]).unwrap();
    let fifth = ask(&mut b, &["ID", "job-1"]).unwrap();
    println!("fourth {} {}", text(&fourth[0]), if fourth[1] == fifth[1] { "same" } else { "another" });
    println!("release {}", release(&mut a, &fourth[1], "FAIL"));
    println!("release {}", release(&mut a, &fourth[1], "FAIL"));
}
