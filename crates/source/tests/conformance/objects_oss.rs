//! Blobs in a bucket of OSS. There is no server of it to be had: this one keeps objects in memory and verifies
//! signatures of version 4 (help.aliyun.com, "V4 signature"); what verifies them is itself held against a
//! signature that Alibaba publishes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use draught_digest::Digest;
use draught_oci::Descriptor;
use draught_source::{
    BlobBackend as _, Class, Client, ObjectCredentials, ObjectStore, PART_BYTES, Pushed, Settings,
    Source as _,
};

use crate::support::{Script, Seen, answer, chain, noise, payload, settings};

const REGION: &str = "cn-hangzhou";
const KEY_ID: &str = "ak";
const KEY_SECRET: &str = "sk-that-is-secret";

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    assert!(key.len() <= 64);
    let padded = |with: u8| {
        let mut block = vec![with; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Digest::sha256(&[padded(0x36), text.to_vec()].concat());
    *Digest::sha256(&[padded(0x5c), inner.as_bytes().to_vec()].concat()).as_bytes()
}

fn escaped(text: &str, keep: &str) -> String {
    let escape = |byte: u8| {
        let c = char::from(byte);
        match c.is_ascii_alphanumeric() || "-_.~".contains(c) || keep.contains(c) {
            true => c.to_string(),
            false => format!("%{byte:02X}"),
        }
    };
    text.bytes().map(escape).collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().unwrap(), rest.next().unwrap()];
        let digits = std::str::from_utf8(&digits).unwrap().to_owned();
        bytes.push(u8::from_str_radix(&digits, 16).unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// The header that a request must have.
fn authorization(
    secret: &str,
    method: &str,
    resource: &str,
    query: &[(String, String)],
    headers: &[(String, String)],
    additional: &[&str],
) -> String {
    let mut pairs: Vec<_> = query
        .iter()
        .map(|(name, value)| (escaped(name, ""), escaped(value, "")))
        .collect();
    pairs.sort();
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(name, value)| match value.is_empty() {
            true => name,
            false => format!("{name}={value}"),
        })
        .collect();
    let signed = |name: &str| {
        ["content-type", "content-md5"].contains(&name)
            || name.starts_with("x-oss-")
            || additional.contains(&name)
    };
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| signed(name))
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    lines.sort();
    let request = format!(
        "{method}\n{}\n{}\n{}\n{}\nUNSIGNED-PAYLOAD",
        escaped(resource, "/"),
        pairs.join("&"),
        lines.concat(),
        additional.join(";"),
    );
    let time = headers.iter().find(|(name, _)| name == "x-oss-date");
    let time = &time.unwrap().1;
    let day = &time[..8];
    let scope = format!("{day}/{REGION}/oss/aliyun_v4_request");
    let hashed = Digest::sha256(request.as_bytes()).hex();
    let text = format!("OSS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
    let mut key = format!("aliyun_v4{secret}").into_bytes();
    for word in [day, REGION, "oss", "aliyun_v4_request"] {
        key = hmac(&key, word.as_bytes()).to_vec();
    }
    let signature: String = hmac(&key, text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let additional = match additional {
        [] => String::new(),
        names => format!("AdditionalHeaders={},", names.join(";")),
    };
    format!("OSS4-HMAC-SHA256 Credential={KEY_ID}/{scope},{additional}Signature={signature}")
}

#[test]
fn the_verifier_makes_the_signature_that_alibaba_publishes() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let query = [
        pair("param1", "value1"),
        pair("+param1", "value3"),
        pair("|param1", "value4"),
        pair("+param2", ""),
        pair("|param2", ""),
        pair("param2", ""),
    ];
    for (time, additional, expect) in [
        (
            "20231216T162057Z",
            &[][..],
            "Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
        ),
        (
            "20231216T172512Z",
            &["abc", "zabc"],
            "AdditionalHeaders=abc;zabc,\
             Signature=4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f",
        ),
    ] {
        let headers = [
            pair("x-oss-head1", "value"),
            pair("abc", "value"),
            pair("ZAbc", "value"),
            pair("XYZ", "value"),
            pair("content-type", "text/plain"),
            pair("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
            pair("x-oss-date", time),
        ];
        let path = "/bucket/1234+-/123/1.txt";
        let made = authorization("sk", "PUT", path, &query, &headers, additional);
        let expect = format!(
            "OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,{expect}"
        );
        assert_eq!(made, expect);
    }
}

#[derive(Debug, Default)]
struct Kept {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<u32, Vec<u8>>,
    uploading: bool,
}

/// A query's names and values.
type Query = Vec<(String, String)>;

fn value(query: &Query, name: &str) -> Option<String> {
    let found = query.iter().find(|(other, _)| other == name);
    found.map(|(_, value)| value.clone())
}

fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", &[], body.as_bytes())
}

/// Answers what is signed right.
fn oss(kept: &Mutex<Kept>, seen: &Seen) -> Vec<u8> {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let path = unescaped(path);
    let query: Query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect();
    let given = seen.header("authorization").unwrap_or_default();
    let named = given.split_once("AdditionalHeaders=");
    let named = named.and_then(|(_, rest)| rest.split_once(','));
    let named: Vec<_> = named.map_or_else(Vec::new, |(names, _)| names.split(';').collect());
    let (method, headers) = (&seen.method, &seen.headers);
    let expected = authorization(KEY_SECRET, method, &path, &query, headers, &named);
    if given != expected {
        let text =
            "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>x</StringToSign></Error>";
        return answer("403 Forbidden", &[], text.as_bytes());
    }
    let mut kept = kept.lock().unwrap();
    let key = path.strip_prefix("/blobs/").unwrap();
    let of_upload = |name| value(&query, name).is_some();
    match ["uploads", "uploadId"].into_iter().any(of_upload) {
        true => upload(&mut kept, seen, key, &query),
        false => object(&mut kept, seen, key),
    }
}

fn upload(kept: &mut Kept, seen: &Seen, key: &str, query: &Query) -> Vec<u8> {
    let number = value(query, "partNumber").map(|number| number.parse().unwrap());
    match (seen.method.as_str(), number, value(query, "uploadId")) {
        ("GET", _, None) => {
            let key = value(query, "prefix").unwrap();
            let one = match kept.uploading {
                true => format!("<Upload><Key>{key}</Key><UploadId>A+B</UploadId></Upload>"),
                false => String::new(),
            };
            ok(&format!(
                "<ListMultipartUploadsResult>{one}</ListMultipartUploadsResult>"
            ))
        }
        ("POST", _, None) => {
            kept.uploading = true;
            ok(
                "<InitiateMultipartUploadResult><UploadId>A+B</UploadId></InitiateMultipartUploadResult>",
            )
        }
        (_, _, Some(id)) if id != "A+B" => answer(
            "404 Not Found",
            &[],
            b"<Error><Code>NoSuchUpload</Code></Error>",
        ),
        ("GET", ..) => ok("<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"),
        ("PUT", Some(number), _) => {
            kept.parts.insert(number, seen.body.clone());
            answer("200 OK", &[("etag", "\"F00D\"")], b"")
        }
        _ => {
            let parts = std::mem::take(&mut kept.parts);
            kept.uploading = false;
            let bytes = parts.into_values().flatten().collect();
            kept.objects.insert(key.to_owned(), bytes);
            ok("<CompleteMultipartUploadResult><ETag>F00D</ETag></CompleteMultipartUploadResult>")
        }
    }
}

fn object(kept: &mut Kept, seen: &Seen, key: &str) -> Vec<u8> {
    if seen.method == "PUT" {
        kept.objects.insert(key.to_owned(), seen.body.clone());
        return answer("200 OK", &[("etag", "\"F00D\"")], b"");
    }
    let Some(object) = kept.objects.get(key) else {
        return answer(
            "404 Not Found",
            &[],
            b"<Error><Code>NoSuchKey</Code></Error>",
        );
    };
    if seen.method == "HEAD" {
        let bytes = object.len().to_string();
        return answer("200 OK", &[("content-length", &bytes)], b"");
    }
    let range = seen.header("range").unwrap().strip_prefix("bytes=");
    let (first, last) = range.unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let told = format!("bytes {first}-{last}/{}", object.len());
    let headers = [("content-range", told.as_str())];
    answer("206 Partial Content", &headers, &object[first..=last])
}

fn store(server: &Script, secret: &str) -> ObjectStore {
    let client = Client::new(Settings {
        object_credentials: ObjectCredentials::of(
            None,
            [
                ("ALIBABA_CLOUD_ACCESS_KEY_ID".to_owned(), KEY_ID.to_owned()),
                (
                    "ALIBABA_CLOUD_ACCESS_KEY_SECRET".to_owned(),
                    secret.to_owned(),
                ),
            ],
        ),
        ..settings()
    });
    let location = format!(
        "oss://blobs/p/?region={REGION}&endpoint=http://{}",
        server.addr()
    );
    ObjectStore::open(&location.parse().unwrap(), &client).unwrap()
}

#[tokio::test]
async fn blobs_go_and_come_signed_as_oss_wants_it() {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let of_server = Arc::clone(&kept);
    let server = Script::start(move |seen| oss(&of_server, seen));
    let oss = store(&server, KEY_SECRET);
    for bytes in [100, usize::try_from(PART_BYTES).unwrap() + 1] {
        let blob = noise(1, bytes);
        let descriptor = Descriptor::of("x", &blob);
        let digest = &descriptor.digest;
        assert!(!oss.has_blob(digest).await.unwrap());
        for expect in [Pushed::Written, Pushed::Existed] {
            let pushed = oss.put_blob(&descriptor, &payload(&blob)).await.unwrap();
            assert_eq!(pushed, expect);
        }
        let key = format!("p/{}", digest.hex());
        assert!(kept.lock().unwrap().objects[&key] == blob);
        assert!(oss.read_range(digest, 7..99).await.unwrap() == blob[7..99]);
        let stream = oss.blob(&descriptor).await.unwrap();
        assert!(stream.into_bytes(bytes).await.unwrap() == blob);
    }
    let wrong = store(&server, "other");
    let error = wrong
        .read_range(&Digest::sha256(b"x"), 0..9)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    let text = chain(&error);
    assert!(
        text.contains("SignatureDoesNotMatch") && !text.contains("OSS4"),
        "{text}"
    );
}
