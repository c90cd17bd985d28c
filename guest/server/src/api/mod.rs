//! The OpenAI-compatible API: from a complete HTTP request to a response, or to an [`Answer`] that
//! grows with every decode step.

mod answer;
mod attestation;
mod chat;
mod completions;
mod error;
mod fields;
pub(crate) mod health;
mod model_key;
mod models;
mod parameters;

use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::time::Duration;

use engine::SubmitError;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::Value;

pub(crate) use answer::Answer;
pub(crate) use error::ApiError;
pub(crate) use model_key::Endorsement;

use crate::{
    Health, Inference, Platform, WallClock,
    evidence::{Attestor, Ticket},
    http::{Method, Request, Response},
    load::Load,
    tls::Session,
    vault::Vault,
};
use answer::{Heading, Kind};
use fields::Fields;
use parameters::Parameters;

/// Tokens a completion gets when the request does not say: the OpenAI API reference's default.
const COMPLETION_TOKENS: usize = 16;

/// What all connections share.
pub(crate) struct Service<I> {
    pub(crate) health: Health,
    pub(crate) platform: Platform,
    pub(crate) clock: Arc<dyn WallClock>,
    /// Monotonic time, as of the last poll.
    pub(crate) now: Duration,
    pub(crate) load: Load,
    pub(crate) rng: SystemRandom,
    pub(crate) attestor: Attestor,
    pub(crate) vault: Vault,
    /// What the model's owner left with its key.
    pub(crate) endorsement: Option<Endorsement>,
    /// The engine, once there is one, and the UNIX time at which it came.
    pub(crate) model: Option<(I, u64)>,
    /// The configured model name, which goes before the model's own.
    pub(crate) configured_name: Option<String>,
    /// Tokens a chat answer gets when the request does not say.
    pub(crate) answer_tokens: usize,
}

/// How a request is answered.
pub(crate) enum Reply<Sequence> {
    /// At once.
    Whole(Response),
    /// When the quote is there.
    Attested(Ticket),
    /// As the engine goes along.
    Growing(Box<Answer<Sequence>>),
}

impl<I: Inference> Service<I> {
    /// The name of the model served, once it is known.
    fn model_name(&self) -> Option<&str> {
        let own = self.model.as_ref().map(|(engine, _)| engine.name());
        self.configured_name.as_deref().or(own)
    }

    /// Answers `request`, or begins to.
    ///
    /// # Errors
    /// An [`ApiError`] that says what to change.
    pub(crate) fn answer(
        &mut self,
        request: &mut Request,
        session: &Session,
    ) -> Result<Reply<I::Sequence>, ApiError> {
        match request.path.as_str() {
            "/health" => {
                read_only(request)?;
                let health = self.health_now();
                let evidence = (self.attestor.standing(self.now), self.attestor.failure());
                let model = self.model_name();
                let response = health::respond(&health, &self.platform, model, evidence, self.load);
                Ok(Reply::Whole(response))
            }
            "/attestation" => {
                check_post(request)?;
                self.attest(request, session).map(Reply::Attested)
            }
            "/model-key" => {
                check_post(request)?;
                self.take_key(request, session).map(Reply::Whole)
            }
            "/endorsement" => {
                read_only(request)?;
                self.show_endorsement(session).map(Reply::Whole)
            }
            "/v1/models" => {
                read_only(request)?;
                let (name, context, created) = self.served_model()?;
                Ok(Reply::Whole(models::list(name, context, created)))
            }
            "/v1/chat/completions" => self.generate(request, Kind::Chat),
            "/v1/completions" => self.generate(request, Kind::Completion),
            path => {
                let asked = path
                    .strip_prefix("/v1/models/")
                    .ok_or_else(ApiError::no_such_path)?;
                read_only(request)?;
                let asked = models::percent_decode(asked).ok_or_else(ApiError::no_such_path)?;
                let (name, context, created) = self.served_model()?;
                if asked != name {
                    return Err(ApiError::no_such_model(&asked, name));
                }
                Ok(Reply::Whole(models::retrieve(name, context, created)))
            }
        }
    }

    /// The state of the service: what the composition root said, unless the evidence has expired since.
    pub(crate) fn health_now(&self) -> Health {
        match &self.health {
            Health::Ready { .. } if self.attestor.has_lapsed(self.now) => Health::Draining,
            health => health.clone(),
        }
    }

    /// Name, context length and creation time of the model, if requests can be answered.
    fn served_model(&self) -> Result<(&str, usize, u64), ApiError> {
        match (self.health_now(), &self.model, self.model_name()) {
            (Health::Ready { .. }, Some((engine, created)), Some(name)) => {
                Ok((name, engine.context(), *created))
            }
            (Health::Failed { reason }, ..) => Err(ApiError::failed(&reason)),
            (Health::Sealed, ..) => Err(ApiError::sealed()),
            (Health::Draining, ..) => Err(ApiError::draining()),
            _ => Err(ApiError::not_ready()),
        }
    }

    /// Checks a generation request from end to end and hands it to the engine.
    fn generate(&mut self, request: &Request, kind: Kind) -> Result<Reply<I::Sequence>, ApiError> {
        check_post(request)?;
        let (name, context, _) = self.served_model()?;
        let name = String::from(name);
        let body: Value = serde_json::from_slice(&request.body).map_err(ApiError::not_json)?;
        let Value::Object(body) = body else {
            return Err(ApiError::not_json("it is some other JSON value"));
        };
        let fields = Fields::new(&body);
        if let Some(asked) = fields.text("model")?
            && asked != name
        {
            return Err(ApiError::no_such_model(asked, &name));
        }
        let mut random = [0; 16];
        let entropy = |_| ApiError::internal("the entropy source failed");
        self.rng.fill(&mut random).map_err(entropy)?;
        let random = u128::from_le_bytes(random);
        let (id, seed) = ((random >> 64) as u64, random as u64);

        let Some((engine, _)) = &mut self.model else {
            return Err(ApiError::not_ready());
        };
        let mut parameters = Parameters::read(&fields, engine.vocabulary_size(), seed)?;
        let (prompt, parameter, default_tokens) = match kind {
            Kind::Chat => {
                parameters.sampling.logprobs = chat::read_logprobs(&fields)?;
                let prompt = chat::read_prompt(&fields, &request.body)?;
                (engine.encode(&prompt), "messages", self.answer_tokens)
            }
            Kind::Completion => {
                parameters.sampling.logprobs = completions::read_logprobs(&fields)?;
                let prompt = completions::read_prompt(&fields, engine)?;
                (prompt, "prompt", COMPLETION_TOKENS)
            }
        };
        let prompt_tokens = prompt.len();
        let room = context.saturating_sub(prompt_tokens);
        let max_tokens = parameters.max_tokens.unwrap_or(default_tokens.min(room));
        let too_long =
            || ApiError::context_length(parameter, context, prompt_tokens, max_tokens.max(1));
        if max_tokens > room || room == 0 {
            return Err(too_long());
        }
        let sequence = engine.submit(engine::Request {
            prompt,
            max_tokens,
            sampling: parameters.sampling,
            ignore_end: parameters.ignore_end,
        });
        let sequence = sequence.map_err(|error| match error {
            SubmitError::QueueFull => ApiError::busy(),
            SubmitError::PromptTooLong { .. } => too_long(),
            SubmitError::Invalid(name) => ApiError::invalid(name, error.to_string()),
            SubmitError::EmptyPrompt | SubmitError::UnknownToken(_) => {
                ApiError::invalid(parameter, error.to_string())
            }
        })?;
        let created = self.clock.unix_time().as_secs();
        let heading = Heading {
            id,
            created,
            model: name,
        };
        let answer = Answer::new(kind, sequence, parameters.delivery, heading);
        Ok(Reply::Growing(Box::new(answer)))
    }
}

/// Only GET and HEAD.
fn read_only(request: &Request) -> Result<(), ApiError> {
    match request.method {
        Method::Get | Method::Head => Ok(()),
        _ => Err(ApiError::method("GET, HEAD")),
    }
}

/// Only POST, with a body of JSON.
fn check_post(request: &Request) -> Result<(), ApiError> {
    match request.method {
        Method::Post => check_media_type(request),
        _ => Err(ApiError::method("POST")),
    }
}

/// A body is JSON, not compressed. One that does not say what it is is taken for JSON.
fn check_media_type(request: &Request) -> Result<(), ApiError> {
    if let Some(value) = &request.content_type {
        let essence = value.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::media_type(
                "the Content-Type must be application/json",
            ));
        }
    }
    match &request.content_encoding {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => Err(ApiError::media_type(
            "compressed requests are not supported",
        )),
        _ => Ok(()),
    }
}

/// Serialises a value of our own, which has no way to fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
