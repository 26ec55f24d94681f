//! The load generator: keep-alive connections that ask as fast as they are answered, or at a fixed rate.
//!
//! Owns: connections, pace, the measuring of latency. Does not own: what is asked and what an answer means (the
//! [`Callers`]). One thread and HTTP/1.1 without a client library on top: it must leave the machine to the server.
//! Called by buyers.rs and ceilings.rs.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::LocalSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// A call that is not answered by then counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_WAIT: Duration = Duration::from_millis(50);

/// The `/graphql` of a server, or of several that share a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port of each.
    servers: Arc<[String]>,
}

impl Target {
    /// From `http://host:port`; `None` for anything else, TLS included: that would measure TLS.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let authority = url.strip_prefix("http://")?.trim_end_matches('/');
        let is_plain = !authority.is_empty() && !authority.contains(['/', '?', '#', '@']);
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        is_plain.then(|| Self { servers: [authority].into() })
    }

    /// All of these: connections are dealt out to them in turn.
    #[must_use]
    pub fn all(targets: &[Self]) -> Self {
        Self { servers: targets.iter().flat_map(|target| target.servers.iter().cloned()).collect() }
    }

    /// The server of a connection.
    fn server(&self, connection: usize) -> &str {
        self.servers.get(connection % self.servers.len().max(1)).map_or("", String::as_str)
    }

    /// Whether the server, the first of several, answers `/healthz/ready` with 200.
    pub async fn is_ready(&self) -> bool {
        let server = self.server(0);
        let ask = async {
            let mut sender = connect(server).await?;
            let request = Request::get("/healthz/ready").header(header::HOST, server).body(Full::default());
            let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(answer.status().is_success())
        };
        timeout(CONNECT_TIMEOUT, ask).await.is_ok_and(|answer| answer.unwrap_or(false))
    }
}

/// What to send. `note` is the caller's own, given back with the answer.
pub struct Call<N> {
    /// The whole header value; none for a visitor.
    pub authorization: Option<Arc<str>>,
    pub body: String,
    pub note: N,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// At a fixed rate it begins when the call was due, not when a connection was free to send it: a server that stands
    /// still delays the calls behind it, and they count too.
    pub latency: Duration,
    /// Since the first call.
    pub at: Duration,
}

/// Those who call. They live on the generator's one thread and must be quick.
pub trait Callers: Send + 'static {
    type Note;

    /// The next call; `None` ends the load.
    fn next(&mut self) -> Option<Call<Self::Note>>;

    /// Takes an answer, and perhaps calls again at once on the same connection.
    fn answered(&mut self, note: Self::Note, answer: &Answer<'_>) -> Option<Call<Self::Note>>;

    /// The connection broke, or the answer took too long.
    fn lost(&mut self, note: Self::Note);
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections, and so the most calls under way at one time.
    pub in_flight: usize,
    pub duration: Duration,
    /// Calls a second; as fast as they are answered when `None`.
    pub rate: Option<f64>,
    /// The generator's core; any when `None`.
    pub core: Option<usize>,
}

/// Runs the load on a thread of its own and gives the callers back.
///
/// # Errors
/// When not even one connection can be made, or there is no such core.
pub async fn fire<C: Callers>(target: &Target, load: Load, callers: C) -> io::Result<C> {
    let target = target.clone();
    let (done, fired) = oneshot::channel();
    // Not one of the runtime's threads: they would keep the core.
    std::thread::Builder::new().name("generator".to_owned()).spawn(move || {
        let run = || {
            if let Some(core) = load.core {
                keep_to_core(core)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, volley(target, load, callers))
        };
        // Nobody waits any more when the stampede was stopped.
        drop(done.send(run()));
    })?;
    fired.await.map_err(io::Error::other)?
}

/// Lets this thread run on one core alone.
#[cfg(target_os = "linux")]
fn keep_to_core(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

#[cfg(not(target_os = "linux"))]
fn keep_to_core(_core: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

async fn volley<C: Callers>(target: Target, load: Load, callers: C) -> io::Result<C> {
    let mut connections = Vec::with_capacity(load.in_flight);
    for number in 0..load.in_flight {
        connections.push((number, connect(target.server(number)).await?));
    }
    let start = Instant::now();
    let volley = Rc::new(Volley { target, load, start, calls: Cell::new(0), callers: RefCell::new(callers) });
    let lanes = connections.into_iter().map(|(number, connection)| tokio::task::spawn_local(lane(volley.clone(), number, connection)));
    let lanes: Vec<_> = lanes.collect();
    for lane in lanes {
        lane.await.map_err(io::Error::other)?;
    }
    let volley = Rc::into_inner(volley).ok_or_else(|| io::Error::other("a connection outlived the load"))?;
    Ok(volley.callers.into_inner())
}

struct Volley<C> {
    target: Target,
    load: Load,
    start: Instant,
    calls: Cell<u32>,
    callers: RefCell<C>,
}

impl<C: Callers> Volley<C> {
    /// The next call and when it is due; `None` when the time is over.
    fn next(&self) -> Option<(Call<C::Note>, Instant)> {
        let number = self.calls.replace(self.calls.get() + 1);
        let due = self.load.rate.map_or_else(Instant::now, |rate| self.start + due_after(number, rate));
        if due >= self.start + self.load.duration {
            return None;
        }
        Some((self.callers.borrow_mut().next()?, due))
    }
}

/// When a call is due at a fixed rate.
fn due_after(number: u32, rate: f64) -> Duration {
    Duration::from_secs_f64(f64::from(number) / rate)
}

/// Calls, one after the other, on one connection; makes a new one when it breaks.
async fn lane<C: Callers>(volley: Rc<Volley<C>>, number: usize, mut connection: SendRequest<Full<Bytes>>) {
    let server = volley.target.server(number);
    while let Some((call, due)) = volley.next() {
        if volley.load.rate.is_some() {
            sleep_until(due).await;
        }
        let (mut waiting, mut begun) = (Some(call), due);
        while let Some(Call { authorization, body, note }) = waiting.take() {
            let asked = timeout(ANSWER_TIMEOUT, ask(&mut connection, server, authorization.as_deref(), body)).await;
            let Ok(Ok((status, body))) = asked else {
                volley.callers.borrow_mut().lost(note);
                let Some(new) = reconnect(&volley, server).await else { return };
                connection = new;
                break;
            };
            let now = Instant::now();
            let answer = Answer { status, body: &body, latency: now - begun, at: now - volley.start };
            waiting = volley.callers.borrow_mut().answered(note, &answer);
            begun = now;
        }
    }
}

async fn ask(
    connection: &mut SendRequest<Full<Bytes>>,
    server: &str,
    authorization: Option<&str>,
    body: String,
) -> io::Result<(u16, Bytes)> {
    let mut request = Request::post("/graphql").header(header::HOST, server).header(header::CONTENT_TYPE, "application/json");
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
    connection.ready().await.map_err(io::Error::other)?;
    let answer = connection.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((status, body))
}

/// A new connection, as long as there is time for one.
async fn reconnect<C>(volley: &Volley<C>, server: &str) -> Option<SendRequest<Full<Bytes>>> {
    while volley.start.elapsed() < volley.load.duration {
        match connect(server).await {
            Ok(connection) => return Some(connection),
            Err(_) => sleep(RECONNECT_WAIT).await,
        }
    }
    None
}

async fn connect(server: &str) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // How it ends is told to whoever asks on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_plain_address() {
        let authority = |url| Target::parse(url).map(|target| target.server(0).to_owned());
        assert_eq!(authority("http://127.0.0.1:8000/").as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(authority("http://shop.example").as_deref(), Some("shop.example:80"));
        assert_eq!(authority("http://[::1]:8000").as_deref(), Some("[::1]:8000"));
        assert_eq!(authority("https://shop.example"), None);
        assert_eq!(authority("http://shop.example/graphql"), None);
        let both = Target::all(&["http://a:1", "http://b:2"].map(|url| Target::parse(url).unwrap()));
        assert_eq!([0, 1, 2].map(|connection| both.server(connection)), ["a:1", "b:2", "a:1"]);
    }

    #[test]
    fn at_a_fixed_rate_calls_are_due_whatever_happened_to_earlier_ones() {
        assert_eq!(due_after(0, 200.0), Duration::ZERO);
        assert_eq!(due_after(500, 200.0), Duration::from_millis(2_500));
    }
}
