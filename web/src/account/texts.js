// What the account pages say, in Korean and English.

const en = {
  lang: "en",
  verify: {
    title: "Confirm your e-mail address",
    lead: "Press the button to confirm that this address is yours.",
    button: "Confirm address",
    done: (email) => (email ? `${email} is confirmed. You can sign in now.` : "Your address is confirmed. You can sign in now."),
    invalid: "This link has expired or was used before. If you have confirmed your address already, just sign in.",
    again: "Get a new link",
  },
  confirmEmail: {
    title: "Confirm your new e-mail address",
    lead: "Press the button, and your account uses this address from now on.",
    button: "Confirm the new address",
    done: (email) => (email ? `Your account uses ${email} now. Sign in with it from now on.` : "Your account uses the new address now. Sign in with it from now on."),
    invalid: "This link has expired or was used before, or the address has an account of its own by now. You can ask for another link in your account.",
  },
  reset: {
    title: "Choose a new password",
    label: "New password",
    hint: "10 to 128 characters. A sentence is easier to remember than a puzzle.",
    show: "Show the password",
    button: "Save password",
    done: () => "Your password is changed, and you are signed out everywhere else. You can sign in with it now.",
    length: "The password needs 10 to 128 characters.",
    invalid: "This link has expired or was used before.",
    again: "Get a new link",
  },
  email: "E-mail address",
  sent: "If the address has an account that needs it, a new link is on its way.",
  busy: "One moment…",
  incomplete: "This link is incomplete. Open it from the e-mail once more, or copy the whole of it.",
  refused: "That was not accepted. Please check what you typed.",
  rateLimited: "That was too often. Please wait a while and try again.",
  unreachable: "The server cannot be reached at the moment. Please try again.",
  fault: (id) => `Something went wrong on our side. Please try again.${id ? ` (${id})` : ""}`,
};

const ko = {
  lang: "ko",
  verify: {
    title: "이메일 주소 확인",
    lead: "아래 버튼을 눌러 본인의 이메일 주소임을 확인해 주세요.",
    button: "이메일 주소 확인하기",
    done: (email) => (email ? `${email} 주소가 확인되었습니다. 이제 로그인할 수 있습니다.` : "이메일 주소가 확인되었습니다. 이제 로그인할 수 있습니다."),
    invalid: "만료되었거나 이미 사용한 링크입니다. 이미 확인을 마쳤다면 바로 로그인해 주세요.",
    again: "새 링크 받기",
  },
  confirmEmail: {
    title: "새 이메일 주소 확인",
    lead: "아래 버튼을 누르면 앞으로 계정에 이 주소를 사용합니다.",
    button: "새 이메일 주소 확인하기",
    done: (email) => (email ? `계정의 이메일 주소가 ${email}(으)로 변경되었습니다. 이제 이 주소로 로그인해 주세요.` : "계정의 이메일 주소가 변경되었습니다. 이제 새 주소로 로그인해 주세요."),
    invalid: "만료되었거나 이미 사용한 링크이거나, 이미 가입된 주소입니다. 계정에서 새 링크를 요청할 수 있습니다.",
  },
  reset: {
    title: "새 비밀번호 설정",
    label: "새 비밀번호",
    hint: "10자 이상 128자 이하로 입력해 주세요. 복잡한 조합보다 긴 문장이 기억하기 쉽습니다.",
    show: "비밀번호 표시",
    button: "비밀번호 저장하기",
    done: () => "비밀번호가 변경되었고 다른 모든 기기에서 로그아웃되었습니다. 이제 새 비밀번호로 로그인할 수 있습니다.",
    length: "비밀번호는 10자 이상 128자 이하여야 합니다.",
    invalid: "만료되었거나 이미 사용한 링크입니다.",
    again: "새 링크 받기",
  },
  email: "이메일 주소",
  sent: "해당 주소로 가입된 계정에 필요한 경우 새 링크를 보내 드립니다.",
  busy: "잠시만 기다려 주세요…",
  incomplete: "링크가 완전하지 않습니다. 이메일의 링크를 다시 열거나 주소 전체를 복사해 주세요.",
  refused: "처리하지 못했습니다. 입력한 내용을 확인해 주세요.",
  rateLimited: "요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.",
  unreachable: "지금은 서버에 연결할 수 없습니다. 다시 시도해 주세요.",
  fault: (id) => `일시적인 문제가 발생했습니다. 다시 시도해 주세요.${id ? ` (${id})` : ""}`,
};

export const texts = /^ko\b/i.test(navigator.language) ? ko : en;
