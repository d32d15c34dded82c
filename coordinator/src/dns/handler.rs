//! The protocol around a lookup: opcodes, EDNS, flags, response codes.

use hickory_net::runtime::Time;
use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::zone::{Found, Lookup, Zone};
use crate::node::Node;

/// Answers queries of one zone.
pub(super) struct Handler {
    zone: Zone,
    node: Node,
}

/// What is sent, beside the question.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    authoritative: bool,
    found: Found,
    soa: Option<Record>,
}

/// Larger UDP answers are often lost as fragments (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
const SMALLEST_UDP_PAYLOAD: u16 = 512;

impl Handler {
    pub(super) const fn new(zone: Zone, node: Node) -> Self {
        Self { zone, node }
    }

    fn respond(&self, request: &Request) -> Response {
        let failure = |code| Response { code, ..Response::default() };
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return failure(ResponseCode::BADVERS);
        }
        // Updates come through the log and nowhere else.
        if request.metadata.op_code != OpCode::Query {
            return failure(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return failure(ResponseCode::FormErr) };
        match info.query.query_class() {
            DNSClass::IN | DNSClass::ANY => {}
            _ => return failure(ResponseCode::Refused),
        }
        let record_type = info.query.query_type();
        if matches!(record_type, RecordType::AXFR | RecordType::IXFR) {
            return failure(ResponseCode::Refused);
        }
        let name = info.query.original().name();
        match self.node.replica.read(|state| self.zone.look_up(state, name, record_type)) {
            Lookup::Outside => failure(ResponseCode::Refused),
            Lookup::NoName { soa } => {
                Response { code: ResponseCode::NXDomain, authoritative: true, soa: Some(soa), found: Found::default() }
            }
            Lookup::NoData { soa } => Response { authoritative: true, soa: Some(soa), ..Response::default() },
            Lookup::Found(found) => Response { authoritative: true, found, ..Response::default() },
            Lookup::Empty { reason } => {
                tracing::debug!(%name, reason, "a DNS name has no answer");
                failure(ResponseCode::ServFail)
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let response = self.respond(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = response.authoritative;
        metadata.response_code = response.code;

        let edns = request.edns.as_ref().map(|asked| answer_edns(asked, response.code));
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let Found { answers, additionals } = &response.found;
        let message = builder.build(metadata, answers, &[], response.soa.iter(), additionals);
        match handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS response could not be sent");
                let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
                metadata.response_code = ResponseCode::ServFail;
                hickory_proto::op::Header { metadata, counts: Default::default() }.into()
            }
        }
    }
}

fn answer_edns(asked: &Edns, code: ResponseCode) -> Edns {
    let mut edns = Edns::new();
    edns.set_version(0)
        .set_max_payload(asked.max_payload().clamp(SMALLEST_UDP_PAYLOAD, UDP_PAYLOAD))
        .set_rcode_high(code.high());
    edns
}
