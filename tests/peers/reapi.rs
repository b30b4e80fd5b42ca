//! A small client of the Remote Execution API: gRPC over HTTP/2 in the clear, for the few calls that the tests need.

use bytes::Bytes;
use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use prost::Message;

const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/";
/// gRPC's own limit of a message is 4 MiB.
const BATCH_BYTES: usize = 2 << 20;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlobName {
    #[prost(string, tag = "1")]
    hash: String,
    #[prost(int64, tag = "2")]
    size_bytes: i64,
}

impl From<&Descriptor> for BlobName {
    fn from(blob: &Descriptor) -> Self {
        Self { hash: blob.digest.to_hex(), size_bytes: blob.size.cast_signed() }
    }
}

impl BlobName {
    pub(crate) fn descriptor(&self) -> Descriptor {
        let digest = Digest::from_hex(DigestFunction::Sha256, &self.hash).unwrap();
        Descriptor { digest, size: self.size_bytes.cast_unsigned() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Action {
    #[prost(message, optional, tag = "1")]
    pub(crate) command: Option<BlobName>,
    #[prost(message, optional, tag = "2")]
    pub(crate) input_root: Option<BlobName>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Directory {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<Named>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) directories: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Named {
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<BlobName>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Blob {
    #[prost(message, optional, tag = "1")]
    digest: Option<BlobName>,
    #[prost(bytes, tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateRequest {
    #[prost(message, repeated, tag = "2")]
    requests: Vec<Blob>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateResponse {
    #[prost(message, repeated, tag = "1")]
    responses: Vec<Updated>,
}

#[derive(Clone, PartialEq, Message)]
struct Updated {
    #[prost(message, optional, tag = "2")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "2")]
    digests: Vec<BlobName>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    responses: Vec<Blob>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(int64, tag = "2")]
    write_offset: i64,
    #[prost(bool, tag = "3")]
    finish_write: bool,
    #[prost(bytes, tag = "10")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteResponse {
    #[prost(int64, tag = "1")]
    committed_size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExecuteRequest {
    #[prost(bool, tag = "3")]
    skip_cache_lookup: bool,
    #[prost(message, optional, tag = "6")]
    action: Option<BlobName>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(bool, tag = "3")]
    done: bool,
    #[prost(message, optional, tag = "5")]
    response: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ExecuteResponse {
    #[prost(bytes, tag = "1")]
    result: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    status: Option<Status>,
}

/// What of a result is looked at here; the rest is for `cas_action`.
#[derive(Clone, PartialEq, Message)]
struct ResultHead {
    #[prost(int32, tag = "4")]
    exit_code: i32,
    #[prost(bytes, tag = "5")]
    stdout: Vec<u8>,
    #[prost(bytes, tag = "7")]
    stderr: Vec<u8>,
}

pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    sender: h2::client::SendRequest<Bytes>,
    pending: Vec<Blob>,
    pending_bytes: usize,
}

impl Client {
    /// Connects; `None` while nobody listens.
    pub(crate) fn connect(address: &str) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.ok()?;
            let (sender, connection) = h2::client::handshake(stream).await.ok()?;
            tokio::spawn(async move { connection.await.ok() });
            sender.ready().await.ok()
        })?;
        Some(Self { runtime, sender, pending: Vec::new(), pending_bytes: 0 })
    }

    /// One call; returns the messages of the answer.
    fn call(&mut self, path: &str, requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let request = http::Request::post(format!("http://cas{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut frames = Vec::new();
        for message in requests {
            frames.push(0);
            frames.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            frames.extend_from_slice(message);
        }
        let sender = self.sender.clone();
        let (bytes, status) = self.runtime.block_on(async move {
            let mut sender = sender.ready().await.unwrap();
            let (response, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(frames.into(), true).unwrap();
            let response = response.await.unwrap();
            let head = response.headers().clone();
            let mut body = response.into_body();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                bytes.extend_from_slice(&chunk);
            }
            let trailers = body.trailers().await.unwrap().unwrap_or(head);
            let text = |name: &str| {
                String::from_utf8_lossy(trailers.get(name).map_or(b"", |value| value.as_bytes())).into_owned()
            };
            (bytes, (text("grpc-status"), text("grpc-message")))
        });
        assert_eq!(status.0, "0", "{path}: {}", status.1);
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while let [_, a, b, c, d, tail @ ..] = rest {
            let (message, next) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            messages.push(message.to_vec());
            rest = next;
        }
        messages
    }

    /// Uploads a blob, small ones together with others.
    pub(crate) fn upload(&mut self, blob: &Descriptor, data: Vec<u8>) {
        if data.len() > BATCH_BYTES {
            let name = format!(
                "uploads/{:08}-0000-4000-8000-000000000000/blobs/{}/{}",
                data.len() % 99_999_999,
                blob.digest.to_hex(),
                blob.size
            );
            let count = data.chunks(BATCH_BYTES).count();
            let requests: Vec<Vec<u8>> = data
                .chunks(BATCH_BYTES)
                .enumerate()
                .map(|(index, chunk)| {
                    let request = WriteRequest {
                        resource_name: name.clone(),
                        write_offset: i64::try_from(index * BATCH_BYTES).unwrap(),
                        finish_write: index + 1 == count,
                        data: chunk.to_vec(),
                    };
                    request.encode_to_vec()
                })
                .collect();
            let answer = self.call("/google.bytestream.ByteStream/Write", &requests);
            assert_eq!(WriteResponse::decode(&answer[0][..]).unwrap().committed_size, blob.size.cast_signed());
            return;
        }
        self.pending_bytes += data.len() + 100;
        self.pending.push(Blob { digest: Some(blob.into()), data });
        if self.pending_bytes > BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let requests = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if !requests.is_empty() {
            let answer = self.call(&format!("{CAS}BatchUpdateBlobs"), &[UpdateRequest { requests }.encode_to_vec()]);
            for updated in UpdateResponse::decode(&answer[0][..]).unwrap().responses {
                let status = updated.status.unwrap_or_default();
                assert_eq!(status.code, 0, "{}", status.message);
            }
        }
    }

    pub(crate) fn download(&mut self, blob: &Descriptor) -> Vec<u8> {
        let request = ReadRequest { digests: vec![blob.into()] };
        let answer = self.call(&format!("{CAS}BatchReadBlobs"), &[request.encode_to_vec()]);
        ReadResponse::decode(&answer[0][..]).unwrap().responses.remove(0).data
    }

    /// Executes an action anew; returns the bytes of its `ActionResult`.
    pub(crate) fn execute(&mut self, action: &Descriptor) -> Vec<u8> {
        self.flush();
        let request = ExecuteRequest { skip_cache_lookup: true, action: Some(action.into()) };
        let answer = self.call("/build.bazel.remote.execution.v2.Execution/Execute", &[request.encode_to_vec()]);
        let last = Operation::decode(&answer.last().unwrap()[..]).unwrap();
        assert!(last.done, "the operation has not ended");
        let response = ExecuteResponse::decode(&last.response.unwrap().value[..]).unwrap();
        let status = response.status.unwrap_or_default();
        let head = ResultHead::decode(&response.result[..]).unwrap();
        let shown = String::from_utf8_lossy(&head.stderr).into_owned() + &String::from_utf8_lossy(&head.stdout);
        assert_eq!((status.code, head.exit_code), (0, 0), "{} {shown}", status.message);
        response.result
    }
}
