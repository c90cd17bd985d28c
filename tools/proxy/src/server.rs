//! The endpoint: HTTP/1.1 in the clear, for programs on this machine.

use core::convert::Infallible;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::cancel::{Cancel, CancelOnDrop};
use crate::forward::{Question, Sink, forward};
use crate::pool::Pool;
use crate::reply::{self, Reply};
use crate::{guard, page, status};

/// Bytes of a request's body; servers allow less.
const BODY_LIMIT: usize = 16 << 20;
/// Connections at a time. Each may have one request, which takes a thread.
const MAX_CONNECTIONS: usize = 256;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Parts of an answer that wait for a client to take them.
const PARTS: usize = 16;

/// Serves for ever.
///
/// # Errors
/// The listener or the runtime does not work.
pub fn serve(pool: Arc<Pool>, listener: TcpListener) -> io::Result<Infallible> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MAX_CONNECTIONS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Whoever finds no place waits in the listener's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of handles, most likely, which passes.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A part of an answer is for now.
            let _ = stream.set_nodelay(true);
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(&pool, address, request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                // How a client's connection ends is the client's business.
                let _ = connection.await;
                drop(place);
            });
        }
    })
}

async fn answer(
    pool: &Arc<Pool>,
    listening: SocketAddr,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let mut reply = match guard::check(request.headers(), listening) {
        Ok(()) => route(pool, request).await,
        Err(intrusion) => reply::error(StatusCode::FORBIDDEN, "forbidden", intrusion.words()),
    };
    reply::mark(&mut reply, pool.weaker_modes());
    Ok(reply)
}

async fn route(pool: &Arc<Pool>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    match (path, request.method()) {
        ("/", &Method::GET) => {
            reply::own(StatusCode::OK, "text/html; charset=utf-8", page::page(pool))
        }
        ("/vitrine/status", &Method::GET) => {
            let body = status::status(pool).to_string();
            reply::own(StatusCode::OK, "application/json", body)
        }
        // Only the API: what else servers have is between them and whoever verifies them.
        (_, &Method::GET | &Method::POST) if path.starts_with("/v1/") => {
            pass_on(pool, request).await
        }
        ("/" | "/vitrine/status", _) => method_not_allowed(),
        _ if path.starts_with("/v1/") => method_not_allowed(),
        _ => reply::error(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path",
        ),
    }
}

fn method_not_allowed() -> Reply {
    let words = "this method is not for this path";
    reply::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", words)
}

async fn pass_on(pool: &Arc<Pool>, request: Request<Incoming>) -> Reply {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut question = Question {
        path: path.to_owned(),
        body: None,
    };
    if request.method() == Method::POST {
        match read_body(request).await {
            Ok(body) => question.body = Some(body),
            Err(reply) => return reply,
        }
    }
    let (head, heard) = oneshot::channel();
    let (parts, received) = mpsc::channel(PARTS);
    let cancel = Cancel::default();
    let guard = CancelOnDrop(cancel.clone());
    let asking = Arc::clone(pool);
    spawn_blocking(move || forward(&asking, &question, &cancel, Sink { head, parts }));
    match heard.await {
        Ok(Ok(head)) => reply::passed_on(head, received, guard),
        Ok(Err(failure)) => reply::failure(failure, pool.pause().as_secs()),
        Err(_) => {
            let words = "the proxy failed";
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, "proxy_failed", words)
        }
    }
}

/// The body of a POST, which is JSON.
async fn read_body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    if let Some(value) = request.headers().get(CONTENT_TYPE) {
        let essence = value.to_str().unwrap_or_default().split(';').next();
        let json =
            essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"));
        if !json {
            let words = "the Content-Type must be application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(reply::error(status, "unsupported_media_type", words));
        }
    }
    match Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let words = format!("the request body is longer than {BODY_LIMIT} bytes");
            Err(reply::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                &words,
            ))
        }
        Err(error) => Err(reply::error(
            StatusCode::BAD_REQUEST,
            "malformed",
            &error.to_string(),
        )),
    }
}
